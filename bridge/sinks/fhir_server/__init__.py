"""A FHIR server as a sink: reads what it can do, makes its ImagingStudy resources match the state, repairs doubles."""

from bridge.sinks.fhir_server.sink import FhirServerPolicy, FhirServerSink
from bridge.sinks.fhir_server.subjects import SubjectPolicy

__all__ = ["FhirServerPolicy", "FhirServerSink", "SubjectPolicy"]
