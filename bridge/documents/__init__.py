"""PURE: the DICOM documents of a study and what they are in FHIR."""
