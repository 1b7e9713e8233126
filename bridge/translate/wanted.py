"""Which DICOM attributes the bridge keeps. What is not named here never leaves the reader."""

from __future__ import annotations

from collections.abc import Mapping

from pydicom.datadict import dictionary_VR, tag_for_keyword

_PATIENT = """
PatientID IssuerOfPatientID IssuerOfPatientIDQualifiersSequence UniversalEntityID UniversalEntityIDType
LocalNamespaceEntityID IdentifierTypeCode AssigningFacilitySequence OtherPatientIDsSequence TypeOfPatientID
PatientName PatientBirthDate PatientSex PatientAge PatientSize PatientWeight
"""
_STUDY = """
StudyInstanceUID StudyDate StudyTime TimezoneOffsetFromUTC StudyID StudyDescription AccessionNumber
IssuerOfAccessionNumberSequence ReferringPhysicianName ReferringPhysicianIdentificationSequence
PersonIdentificationCodeSequence NameOfPhysiciansReadingStudy PhysiciansReadingStudyIdentificationSequence
ProcedureCodeSequence RequestedProcedureCodeSequence RequestedProcedureDescription RequestedProcedureID
RequestAttributesSequence ReferencedRequestSequence ScheduledProcedureStepID ReasonForTheRequestedProcedure
ReasonForRequestedProcedureCodeSequence PlacerOrderNumberImagingServiceRequest FillerOrderNumberImagingServiceRequest
OrderPlacerIdentifierSequence OrderFillerIdentifierSequence AdmissionID IssuerOfAdmissionIDSequence InstitutionName
InstitutionalDepartmentName PerformedLocation CodeValue LongCodeValue URNCodeValue CodingSchemeDesignator
CodingSchemeVersion CodeMeaning EquivalentCodeSequence CodingSchemeIdentificationSequence CodingSchemeUID
"""
_SERIES = """
SeriesInstanceUID Modality SeriesNumber SeriesDescription SeriesDate SeriesTime PerformedProcedureStepStartDate
PerformedProcedureStepStartTime AcquisitionDate AcquisitionTime AcquisitionDateTime BodyPartExamined
AnatomicRegionSequence AnatomicRegionModifierSequence Laterality ImageLaterality FrameLaterality MeasurementLaterality
PerformingPhysicianName PerformingPhysicianIdentificationSequence OperatorsName OperatorIdentificationSequence
ProtocolName Manufacturer ManufacturerModelName DeviceSerialNumber DeviceUID StationName SoftwareVersions StationAETitle
PerformedStationAETitle SpecimenDescriptionSequence SpecimenIdentifier SpecimenUID IssuerOfTheSpecimenIdentifierSequence
ContainerIdentifier IssuerOfTheContainerIdentifierSequence SegmentSequence PatientPosition
"""
_INSTANCE = """
SOPInstanceUID SOPClassUID TransferSyntaxUID SourceApplicationEntityTitle InstanceNumber ImageType NumberOfFrames Rows
Columns ConceptNameCodeSequence ContentLabel ContentDate ContentTime CompletionFlag VerificationFlag DocumentTitle
PixelSpacing ImagerPixelSpacing
SliceThickness SpacingBetweenSlices SliceLocation KVP ExposureTime XRayTubeCurrent Exposure CTDIvol ConvolutionKernel
ReconstructionDiameter GantryDetectorTilt SpiralPitchFactor ContrastBolusAgent ContrastBolusRoute RepetitionTime
EchoTime EffectiveEchoTime InversionTime FlipAngle EchoTrainLength MagneticFieldStrength ScanningSequence
SequenceVariant SequenceName MRAcquisitionType ViewPosition BitsAllocated BitsStored PhotometricInterpretation
BurnedInAnnotation LossyImageCompression SharedFunctionalGroupsSequence FrameAnatomySequence PixelMeasuresSequence
MRTimingAndRelatedParametersSequence MREchoSequence CTExposureSequence CTXRayDetailsSequence CTReconstructionSequence
ExposureTimeInms XRayTubeCurrentInmA PerFrameFunctionalGroupsSequence FrameContentSequence FrameAcquisitionDateTime
CurrentRequestedProcedureEvidenceSequence ReferencedSeriesSequence ReferencedSOPSequence ReferencedSOPInstanceUID
"""
_PROCEDURE_STEP = """
ScheduledStepAttributesSequence PerformedProcedureStepDescription
"""


def _vr(keyword: str) -> str:
    return str(dictionary_VR(keyword))


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return int(tag)


WANTED: Mapping[str, str] = {
    k: _vr(k) for block in (_PATIENT, _STUDY, _SERIES, _INSTANCE, _PROCEDURE_STEP) for k in block.split()
}
"""Keyword → value representation of every attribute that is kept."""

WANTED_TAGS: Mapping[int, tuple[str, str]] = {_tag(k): (k, vr) for k, vr in WANTED.items()}
"""Tag number → (keyword, value representation), for readers that walk the data element by element."""

FILE_META: Mapping[int, str] = {tag: k for tag, (k, _) in WANTED_TAGS.items() if tag >> 16 == 2}
"""Tag number → keyword of what is kept of the file meta information (PS3.10 7.1)."""

PER_FRAME = "PerFrameFunctionalGroupsSequence"
"""Of each frame of a multi-frame image what differs from frame to frame: kept in short, see `Headers.of_instance`."""

REJECTION_TITLES = frozenset({"113001", "113037", "113038", "113039"})
"""DCM codes of the titles of Key Object Selection Documents that reject what they refer to (PS3.16 CID 7011; IHE RAD
TF-3 4.66): of no other document the references are kept."""
