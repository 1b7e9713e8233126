"""DICOM documents that are no measurement reports: by highdicom where it writes them, else element by element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import EncapsulatedPDFStorage, EnhancedSRStorage, XRayRadiationDoseSRStorage

from tests.builders import STUDY, a_dataset
from tests.sr_documents import an_image

KO_UID, PR_UID, PDF_UID = f"{STUDY}.901.1", f"{STUDY}.902.1", f"{STUDY}.903.1"
PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF"
READER_NAME = "Leser^Lia"


def key_objects() -> Dataset:
    """A Key Object Selection `Of Interest` of the one image."""
    content = hd.ko.KeyObjectSelection(document_title=codes.DCM.OfInterest, referenced_objects=[an_image()])
    return hd.ko.KeyObjectSelectionDocument(
        evidence=[an_image()],
        content=content,
        series_instance_uid=f"{STUDY}.901",
        series_number=901,
        sop_instance_uid=KO_UID,
        instance_number=1,
        manufacturer="Fictive PACS",
    )


def presentation_state() -> Dataset:
    """A Grayscale Softcopy Presentation State of the one image."""
    image = an_image(WindowCenter=40, WindowWidth=400, FrameOfReferenceUID="1.2.9")
    return hd.pr.GrayscaleSoftcopyPresentationState(
        referenced_images=[image],
        series_instance_uid=f"{STUDY}.902",
        series_number=902,
        sop_instance_uid=PR_UID,
        instance_number=1,
        manufacturer="Fictive PACS",
        manufacturer_model_name="Viewer",
        software_versions="1",
        device_serial_number="1",
        content_label="FOR REPORT",
        content_description="Window for the report",
        content_creator_name=READER_NAME,
        voi_lut_transformations=[hd.pr.SoftcopyVOILUTTransformation(window_center=40.0, window_width=400.0)],
    )


def verifying(**more: Any) -> Dataset:
    """One item of VerifyingObserverSequence."""
    made = Dataset()
    made.VerifyingObserverName = READER_NAME
    made.VerifyingOrganization = "Fictive Hospital"
    made.VerificationDateTime = "20251201120000+0100"
    for keyword, value in more.items():
        setattr(made, keyword, value)
    return made


def a_pdf(content: bytes = PDF, **attributes: Any) -> Dataset:
    """An Encapsulated PDF, padded to even length."""
    padded = content + b"\0" * (len(content) % 2)
    values: dict[str, Any] = {
        "SOPClassUID": EncapsulatedPDFStorage,
        "SOPInstanceUID": PDF_UID,
        "Modality": "DOC",
        "DocumentTitle": "Report of the scanner",
        "MIMETypeOfEncapsulatedDocument": "application/pdf",
        "EncapsulatedDocument": padded,
        "ContentDate": "20251201",
        "ContentTime": "110500",
        "VerificationFlag": "UNVERIFIED",
        "PixelData": None,
    }
    return a_dataset(series=903, **(values | attributes))


DOSE_UID = f"{STUDY}.905.1"
MGY, MGY_CM = Code("mGy", "UCUM", "mGy"), Code("mGy.cm", "UCUM", "mGy.cm")


def a_ct_acquisition(number: int, ctdi: float, dlp: float) -> hd.sr.ContainerContentItem:
    """TID 10013, of one irradiation event."""
    made = hd.sr.ContainerContentItem(codes.DCM.CTAcquisition, relationship_type="CONTAINS")
    dose = hd.sr.ContainerContentItem(codes.DCM.CTDose, relationship_type="CONTAINS")
    dose.ContentSequence = hd.sr.ContentSequence(
        [
            hd.sr.NumContentItem(codes.DCM.MeanCtdivol, ctdi, MGY, relationship_type="CONTAINS"),
            hd.sr.NumContentItem(codes.DCM.DLP, dlp, MGY_CM, relationship_type="CONTAINS"),
            hd.sr.CodeContentItem(
                codes.DCM.CtdiwPhantomType,
                Code("113691", "DCM", "IEC Body Dosimetry Phantom"),
                relationship_type="CONTAINS",
            ),
        ]
    )
    made.ContentSequence = hd.sr.ContentSequence(
        [
            hd.sr.TextContentItem(codes.DCM.AcquisitionProtocol, "Thorax", relationship_type="CONTAINS"),
            hd.sr.CodeContentItem(
                codes.DCM.TargetRegion, Code("51185008", "SCT", "Chest"), relationship_type="CONTAINS"
            ),
            hd.sr.UIDRefContentItem(
                codes.DCM.IrradiationEventUID, f"{STUDY}.77.{number}", relationship_type="CONTAINS"
            ),
            dose,
        ]
    )
    return made


def a_dose_report(*more: hd.sr.ContentItem, **attributes: Any) -> Dataset:
    """X-Ray Radiation Dose SR, TID 10011: two acquisitions of a CT, 530.5 mGy.cm in all."""
    total = hd.sr.ContainerContentItem(codes.DCM.CTAccumulatedDoseData, relationship_type="CONTAINS")
    total.ContentSequence = hd.sr.ContentSequence(
        [
            hd.sr.NumContentItem(
                codes.DCM.TotalNumberOfIrradiationEvents,
                2,
                Code("{events}", "UCUM", "events"),
                relationship_type="CONTAINS",
            ),
            hd.sr.NumContentItem(codes.DCM.CTDoseLengthProductTotal, 530.5, MGY_CM, relationship_type="CONTAINS"),
        ]
    )
    items = [total, a_ct_acquisition(1, 8.1, 30.5), a_ct_acquisition(2, 12.5, 500.0), *more]
    return a_report_of(XRayRadiationDoseSRStorage, DOSE_UID, codes.DCM.XRayRadiationDoseReport, items, **attributes)


def a_report_of(
    sop_class: str, uid: str, title: Code, items: Sequence[hd.sr.ContentItem], **attributes: Any
) -> Dataset:
    """A structured report with these content items."""
    root = hd.sr.ContainerContentItem(title)
    values: dict[str, Any] = {
        "SOPClassUID": sop_class,
        "SOPInstanceUID": uid,
        "Modality": "SR",
        "ValueType": "CONTAINER",
        "ContinuityOfContent": "SEPARATE",
        "ConceptNameCodeSequence": root.ConceptNameCodeSequence,
        "ContentSequence": list(items),
        "CompletionFlag": "COMPLETE",
        "VerificationFlag": "UNVERIFIED",
        "ContentDate": "20251201",
        "ContentTime": "110500",
        "PixelData": None,
    }
    return a_dataset(series=int(uid.split(".")[-2]), **(values | attributes))


REPORT_UID = f"{STUDY}.906.1"
IMPRESSION = "Solitary nodule of the right lung, 8 mm. Control in 3 months."


def a_section(title: Code, *items: hd.sr.ContentItem) -> hd.sr.ContainerContentItem:
    made = hd.sr.ContainerContentItem(title, relationship_type="CONTAINS")
    made.ContentSequence = hd.sr.ContentSequence(list(items))
    return made


def a_readers_report(*more: hd.sr.ContentItem, refers_to: Sequence[Dataset] = (), **attributes: Any) -> Dataset:
    """Basic Diagnostic Imaging Report (TID 2000) by a person; verified where a VerifyingObserverSequence is given.

    `refers_to`: documents in its evidence.
    """
    person = Code("121006", "DCM", "Person")
    items = [
        hd.sr.CodeContentItem(codes.DCM.ObserverType, person, relationship_type="HAS OBS CONTEXT"),
        hd.sr.PnameContentItem(codes.DCM.PersonObserverName, READER_NAME, relationship_type="HAS OBS CONTEXT"),
        a_section(
            Code("59776-5", "LN", "Findings"),
            hd.sr.TextContentItem(codes.DCM.Finding, "A round opacity.", relationship_type="CONTAINS"),
            hd.sr.NumContentItem(
                Code("81827009", "SCT", "Diameter"), 8, Code("mm", "UCUM", "mm"), relationship_type="CONTAINS"
            ),
        ),
        a_section(
            Code("19005-8", "LN", "Impressions"),
            hd.sr.TextContentItem(codes.DCM.Impression, IMPRESSION, relationship_type="CONTAINS"),
        ),
        *more,
    ]
    made = a_report_of(EnhancedSRStorage, REPORT_UID, Code("18748-4", "LN", "Diagnostic imaging study"), items)
    if refers_to:
        made.CurrentRequestedProcedureEvidenceSequence = evidence_of(refers_to)
    values = {"VerificationFlag": "VERIFIED"} if "VerifyingObserverSequence" in attributes else {}
    for keyword, value in (values | attributes).items():
        setattr(made, keyword, value)
    return made


def evidence_of(documents: Sequence[Dataset]) -> list[Dataset]:
    """CurrentRequestedProcedureEvidenceSequence of documents of one study."""
    study = Dataset()
    study.StudyInstanceUID = STUDY
    study.ReferencedSeriesSequence = []
    for document in documents:
        instance, series = Dataset(), Dataset()
        instance.ReferencedSOPClassUID = document.SOPClassUID
        instance.ReferencedSOPInstanceUID = document.SOPInstanceUID
        series.SeriesInstanceUID = document.SeriesInstanceUID
        series.ReferencedSOPSequence = [instance]
        study.ReferencedSeriesSequence.append(series)
    return [study]
