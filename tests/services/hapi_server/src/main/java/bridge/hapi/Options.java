package bridge.hapi;

import ca.uhn.fhir.context.FhirVersionEnum;
import ca.uhn.fhir.jpa.api.config.JpaStorageSettings.ClientIdStrategyEnum;
import java.util.HashMap;
import java.util.Map;

/** What the command line says: NAME=VALUE words, each with a default. */
record Options(
        FhirVersionEnum version,
        int port,
        String folder,
        ClientIdStrategyEnum clientIds,
        boolean transactions,
        boolean referentialIntegrity,
        long searchReuseMs) {

    static Options of(String[] words) {
        Map<String, String> given = new HashMap<>();
        for (String word : words) {
            String[] parts = word.split("=", 2);
            if (parts.length != 2) {
                throw new IllegalArgumentException("NAME=VALUE expected: " + word);
            }
            given.put(parts[0], parts[1]);
        }
        Options options = new Options(
                FhirVersionEnum.valueOf(taken(given, "version", "R4")),
                Integer.parseInt(taken(given, "port", "0")),
                taken(given, "folder", "."),
                ClientIdStrategyEnum.valueOf(taken(given, "client_ids", "ALPHANUMERIC")),
                Boolean.parseBoolean(taken(given, "transactions", "true")),
                Boolean.parseBoolean(taken(given, "referential_integrity", "true")),
                Long.parseLong(taken(given, "search_reuse_ms", "60000")));
        if (!given.isEmpty()) {
            throw new IllegalArgumentException("unknown options: " + given.keySet());
        }
        return options;
    }

    private static String taken(Map<String, String> given, String name, String otherwise) {
        String value = given.remove(name);
        return value == null ? otherwise : value;
    }
}
