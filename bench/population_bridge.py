"""The imaging side of `bench.population` as the bridge tells the lake of it: the SQL that writes a delta line."""

from __future__ import annotations

from collections.abc import Mapping

from bench.population_fhir import ACSN, BORN, DCM, IDENTIFIED, UID, json_sql

_OPTIONAL_SERIES = {
    name: {name: f"#{name}"} for name in ("slice_thickness_mm", "kvp_kv")
} | {name: {name: f"${name}"} for name in ("convolution_kernel", "contrast_bolus_agent", "series_date")}  # fmt: skip
_FHIR_SERIES = json_sql(
    {"uid": "$series_instance_uid", "number": "#number", "modality": {"system": DCM, "code": "$modality"},
     "numberOfInstances": "#images", "bodySite": {"display": "$body_part"}}
)  # fmt: skip
_SERIES_ROW = json_sql(
    {"study_instance_uid": "$study_instance_uid", "series_instance_uid": "$series_instance_uid",
     "modality": "$modality", "series_number": "#number", "body_part_examined": "$body_part",
     "manufacturer": "$manufacturer", "manufacturer_model_name": "$manufacturer_model_name",
     "number_of_instances": "#images"},
    _OPTIONAL_SERIES,
)  # fmt: skip
_INSTANCE_ROW = json_sql(
    {"study_instance_uid": "$study_instance_uid", "series_instance_uid": "$series_instance_uid",
     "sop_instance_uid": "$sop_instance_uid", "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2", "instance_number": 1,
     "rows": 512, "columns": 512, "bits_allocated": 16, "kvp_kv": "#kvp_kv", "ctdi_vol_mgy": "#ctdi_vol_mgy",
     "x_ray_tube_current_ma": "#x_ray_tube_current_ma"},
    {"acquisition_date": {"acquisition_date": "$acquisition_date"}},
)  # fmt: skip
_STUDY_ROW = json_sql(
    {"study_instance_uid": "$study_instance_uid", "study_description": "$description",
     "accession_number": "$accession_number", "modalities": "$modality", "sources": "pacs",
     "number_of_series": "#number_of_series", "number_of_instances": "#number_of_instances"},
    {"started_date": {"study_date": "$started_date"}},
)  # fmt: skip


def _resource_line(kind: str, id_: str, resource: str) -> str:
    head = f'{{"kind":"resource","origin":"bridge","type":"{kind}","id":"'
    return f"""'{head}' || {id_} || '","revision":1,"deleted":false,"resource":' || {resource} || '}}'"""


def _rows_line(table: str, rows: str) -> str:
    head = f'{{"kind":"rows","table":"{table}","key":"'
    return f"""'{head}' || study_instance_uid || '","revision":1,"rows":[' || {rows} || ']}}'"""


_IMAGING_PATIENT = json_sql({"resourceType": "Patient", "id": "$imaging_patient_id"} | IDENTIFIED, BORN)
_IMAGING_STUDY = json_sql(
    {"resourceType": "ImagingStudy", "id": "$imaging_study_id", "status": "$status",
     "identifier": [UID, {"type": ACSN, "value": "$accession_number"}],
     "subject": {"reference": "Patient/$imaging_patient_id"}, "description": "$description",
     "numberOfSeries": "#number_of_series", "numberOfInstances": "#number_of_instances",
     "modality": "#modality_json", "series": ["#series_json"],
     "endpoint": [{"reference": "Endpoint/pacs"}]},
    {"started_time": {"started": "$started_time"}},
)  # fmt: skip
BRIDGE: Mapping[str, tuple[str, str]] = {
    "patient": (
        "person SEMI JOIN imaging_study USING (n)",
        _resource_line("Patient", "imaging_patient_id", _IMAGING_PATIENT),
    ),
    "imaging_study": (
        f"""(SELECT *, to_json(list_transform(modalities, lambda m: {{'system': '{DCM}', 'code': m}})) AS modality_json
            FROM imaging_study JOIN (SELECT study_instance_uid, string_agg({_FHIR_SERIES}, ',') AS series_json
                                     FROM series GROUP BY ALL) USING (study_instance_uid))""",
        _resource_line("ImagingStudy", "imaging_study_id", _IMAGING_STUDY),
    ),
    "dicom_study": ("imaging_study", _rows_line("dicom_study", _STUDY_ROW)),
    "dicom_series": (
        f"(SELECT study_instance_uid, string_agg({_SERIES_ROW}, ',') AS made FROM series GROUP BY ALL)",
        _rows_line("dicom_series", "made"),
    ),
    "dicom_instance": (
        f"(SELECT study_instance_uid, string_agg({_INSTANCE_ROW}, ',') AS made FROM instance GROUP BY ALL)",
        _rows_line("dicom_instance", "made"),
    ),
}
ENDPOINT = (
    b'{"kind":"resource","origin":"bridge","type":"Endpoint","id":"pacs","revision":1,"deleted":false,"resource":'
    b'{"resourceType":"Endpoint","id":"pacs","status":"active","payloadType":[{"text":"DICOM"}],'
    b'"connectionType":{"code":"dicom-wado-rs"},'
    b'"address":"https://pacs.example/dicom-web"}}\n'
)
