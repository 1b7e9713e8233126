"""DICOM in, FHIR out: keeps FHIR ImagingStudy true to what the archives hold."""

__version__ = "0.1.0"
