"""What an archive is asked for at each level of the Study Root (PS3.4 C.6.2.1)."""

from __future__ import annotations

_LOOKED_AT = """
StudyInstanceUID StudyDate StudyTime AccessionNumber StudyID StudyDescription ReferringPhysicianName PatientName
PatientID PatientBirthDate PatientSex ModalitiesInStudy NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances
"""
_COUNTED = "StudyInstanceUID StudyDate StudyTime NumberOfStudyRelatedInstances"
_STUDY = """
IssuerOfPatientID OtherPatientIDsSequence PatientAge PatientSize PatientWeight TimezoneOffsetFromUTC
IssuerOfAccessionNumberSequence ProcedureCodeSequence RequestedProcedureDescription NameOfPhysiciansReadingStudy
AdmissionID IssuerOfAdmissionIDSequence InstitutionName
"""
_SERIES = """
Modality SeriesNumber SeriesDescription SeriesDate SeriesTime PerformedProcedureStepStartDate
PerformedProcedureStepStartTime BodyPartExamined Laterality PerformingPhysicianName OperatorsName ProtocolName
Manufacturer ManufacturerModelName StationName InstitutionName InstitutionalDepartmentName RequestAttributesSequence
PatientPosition StationAETitle NumberOfSeriesRelatedInstances
"""
_IMAGE = """
SOPClassUID InstanceNumber ImageType NumberOfFrames Rows Columns ContentDate ContentTime AcquisitionDate
AcquisitionTime ConceptNameCodeSequence DocumentTitle ContentLabel PixelSpacing SliceThickness SpacingBetweenSlices
SliceLocation KVP ExposureTime XRayTubeCurrent ConvolutionKernel RepetitionTime EchoTime FlipAngle
MagneticFieldStrength ScanningSequence SequenceVariant ViewPosition ImageLaterality PhotometricInterpretation
BitsStored ContrastBolusAgent
"""
_OF_THE_SERIES = """
PatientAge PatientSize PatientWeight StudyID TimezoneOffsetFromUTC ReferringPhysicianName AccessionNumber
IssuerOfAccessionNumberSequence ProcedureCodeSequence RequestedProcedureCodeSequence RequestedProcedureDescription
ReferencedRequestSequence AdmissionID IssuerOfAdmissionIDSequence StudyDescription IssuerOfPatientID
IssuerOfPatientIDQualifiersSequence OtherPatientIDsSequence InstitutionName InstitutionalDepartmentName Modality
SeriesNumber SeriesDescription SeriesDate SeriesTime PerformedProcedureStepStartDate PerformedProcedureStepStartTime
BodyPartExamined Laterality PerformingPhysicianName OperatorsName ProtocolName Manufacturer ManufacturerModelName
StationName SoftwareVersions PatientPosition RequestAttributesSequence SourceApplicationEntityTitle StationAETitle
PerformedStationAETitle NameOfPhysiciansReadingStudy PhysiciansReadingStudyIdentificationSequence
ReferringPhysicianIdentificationSequence PerformingPhysicianIdentificationSequence OperatorIdentificationSequence
DeviceSerialNumber DeviceUID PerformedLocation PlacerOrderNumberImagingServiceRequest OrderPlacerIdentifierSequence
FillerOrderNumberImagingServiceRequest OrderFillerIdentifierSequence CodingSchemeIdentificationSequence
"""
_MODALITIES = """
AR AU BDUS BI BMD CR CT CTPROTOCOL DG DOC DX ECG EEG EMG EPS ES FID GM HC HD IO IOL IVOCT IVUS KER KO LEN LS M3D MG MR
NM OAM OCT OP OPM OPR OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF RG RTDOSE RTIMAGE RTINTENT RTPLAN
RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF STAIN TEXTUREMAP TG US VA XA XAPROTOCOL XC
"""

LOOKED_AT = tuple(_LOOKED_AT.split())
"""What a study is compared by to see whether it changed: what archives know without opening a file."""

COUNTED = tuple(_COUNTED.split())
READ_STUDY = LOOKED_AT + tuple(_STUDY.split())
READ_SERIES = tuple(_SERIES.split())
READ_IMAGE = tuple(_IMAGE.split())

OF_THE_SERIES = frozenset(_OF_THE_SERIES.split())
"""Attributes that are one for a whole series (PS3.3 A.1.4: of its patient, study, series and equipment): what one
object says holds for the others."""

MODALITIES = tuple(_MODALITIES.split())
"""Modality codes by which a question is divided that cannot be divided by date and time (PS3.3 C.7.3.1.1.1)."""
