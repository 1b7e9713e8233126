package bridge.hapi;

import ca.uhn.fhir.context.FhirVersionEnum;
import ca.uhn.fhir.context.support.IValidationSupport;
import ca.uhn.fhir.jpa.api.config.JpaStorageSettings;
import ca.uhn.fhir.jpa.api.dao.IFhirSystemDao;
import ca.uhn.fhir.jpa.config.r4.JpaR4Config;
import ca.uhn.fhir.jpa.config.r5.JpaR5Config;
import ca.uhn.fhir.jpa.provider.JpaCapabilityStatementProvider;
import ca.uhn.fhir.jpa.provider.JpaSystemProvider;
import ca.uhn.fhir.jpa.search.DatabaseBackedPagingProvider;
import ca.uhn.fhir.narrative2.NullNarrativeGenerator;
import ca.uhn.fhir.rest.server.RestfulServer;
import ca.uhn.fhir.rest.server.provider.ResourceProviderFactory;
import ca.uhn.fhir.rest.server.util.ISearchParamRegistry;
import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;

/** Serves http://127.0.0.1:PORT/fhir, prints "ready", and ends when its standard input ends. */
public final class Main {
    private Main() {}

    public static void main(String[] words) {
        try {
            serve(words);
            System.exit(0);
        } catch (Exception error) {
            error.printStackTrace();
            System.exit(1);
        }
    }

    private static void serve(String[] words) throws Exception {
        Options options = Options.of(words);
        AnnotationConfigApplicationContext beans = new AnnotationConfigApplicationContext();
        beans.registerBean(Options.class, () -> options);
        beans.register(Storage.class, options.version() == FhirVersionEnum.R5 ? JpaR5Config.class : JpaR4Config.class);
        beans.refresh();

        Server jetty = new Server();
        ServerConnector connector = new ServerConnector(jetty);
        connector.setHost("127.0.0.1");
        connector.setPort(options.port());
        jetty.addConnector(connector);
        ServletContextHandler context = new ServletContextHandler("/");
        context.addServlet(new ServletHolder(fhir(beans, options)), "/fhir/*");
        jetty.setHandler(context);
        jetty.start();

        System.out.println("ready");
        System.out.flush();
        while (System.in.read() >= 0) {}
        jetty.stop();
        beans.close();
    }

    private static RestfulServer fhir(AnnotationConfigApplicationContext beans, Options options) {
        IFhirSystemDao<?, ?> system = beans.getBean(IFhirSystemDao.class);
        RestfulServer server = new RestfulServer(system.getContext());
        system.getContext().setNarrativeGenerator(new NullNarrativeGenerator());
        server.registerProviders(beans.getBean(ResourceProviderFactory.class).createProviders());
        if (options.transactions()) {
            server.registerProvider(beans.getBean(JpaSystemProvider.class));
        }
        server.setServerConformanceProvider(new JpaCapabilityStatementProvider(
                server,
                system,
                beans.getBean(JpaStorageSettings.class),
                beans.getBean(ISearchParamRegistry.class),
                beans.getBean(IValidationSupport.class)));
        server.setPagingProvider(beans.getBean(DatabaseBackedPagingProvider.class));
        return server;
    }
}
