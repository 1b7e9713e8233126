"""A model service for the imaging bridge, as small as one can be: the mean density of what looks like lung in a CT.

    uvicorn --app-dir docs/examples lung_density:app --port 9000

It takes the voxels of the largest series that lie between -950 and -500 Hounsfield units, and reports their mean. It
does not know what a lung is: air in the bowel counts as well. An example of the interface, not a medical product.
"""

from __future__ import annotations

import os
import re
import secrets
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from typing import Annotated, Any

import httpx
import numpy as np
from fastapi import FastAPI, Header, HTTPException, Response
from pydantic import BaseModel, Field
from pydicom import Dataset, dcmread

NAME, VERSION = "Lung density example", "1.0.0"
LOWEST_HU, HIGHEST_HU = -950.0, -500.0
MOST_BYTES = 1_073_741_824
DICOM = 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.1'
ATTENUATION = {"scheme": "DCM", "code": "112031", "display": "Attenuation Coefficient"}
MEAN = {"scheme": "SCT", "code": "373098007", "display": "Mean"}
LUNG = {"scheme": "SCT", "code": "39607008", "display": "Lung"}


class WadoRs(BaseModel):
    """Where the images are, and what opens them."""

    study: str
    token: str | None = None


class Series(BaseModel):
    series_instance_uid: str
    number_of_instances: int
    wado_rs: str


class Call(BaseModel):
    """What the bridge sends; what is not used here is passed over."""

    run_id: str
    study_instance_uid: str
    wado_rs: WadoRs
    series: Annotated[list[Series], Field(min_length=1)]


app = FastAPI(title=NAME, version=VERSION)


@app.post("/studies", response_model=None)
def post_study(call: Call, authorization: Annotated[str, Header()] = "") -> dict[str, Any] | Response:
    """The result of one study, or 204 when no voxel of it is that thin."""
    expected = os.environ.get("MODEL_TOKEN", "")
    if expected and not secrets.compare_digest(authorization.encode(), f"Bearer {expected}".encode()):
        raise HTTPException(401, "a bearer token is needed", {"WWW-Authenticate": "Bearer"})
    series = max(call.series, key=lambda s: s.number_of_instances)
    try:
        found = mean_density(images(series.wado_rs, call.wado_rs.token))
    except httpx.HTTPError as error:
        raise HTTPException(503, f"the images cannot be read: {type(error).__name__}") from None
    if found is None:
        return Response(status_code=204)
    measured = {"code": ATTENUATION, "value": round(found, 1), "unit": "[hnsf'U]", "derivation": MEAN}
    finding = {
        "id": "1",
        "code": ATTENUATION,
        "measurements": [measured],
        "location": {"body_site": LUNG},
        "images": [{"series_instance_uid": series.series_instance_uid}],
        "text": f"Mean of all voxels from {LOWEST_HU:g} to {HIGHEST_HU:g} HU; the lung is not segmented.",
    }
    return {
        "run_id": call.run_id,
        "model": {"name": NAME, "version": VERSION},
        "study_instance_uid": call.study_instance_uid,
        "produced_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "findings": [finding],
    }


def mean_density(instances: Iterator[Dataset]) -> float | None:
    """The mean in HU of the voxels in the window, over CT images; None when there are none.

    From    Pixel Data by Rescale Slope and Rescale Intercept (PS3.3 C.11.1)
    """
    total, voxels = 0.0, 0
    for one in instances:
        if one.get("Modality") != "CT" or "RescaleSlope" not in one or "PixelData" not in one:
            continue
        density = one.pixel_array.astype(np.float64) * float(one.RescaleSlope) + float(one.RescaleIntercept)
        thin = density[(density >= LOWEST_HU) & (density <= HIGHEST_HU)]
        total, voxels = total + float(thin.sum()), voxels + thin.size
    return total / voxels if voxels else None


def images(url: str, token: str | None) -> Iterator[Dataset]:
    """The instances under a WADO-RS address (PS3.18 10.4). Raises httpx.HTTPError."""
    headers = {"Accept": DICOM} | ({"Authorization": f"Bearer {token}"} if token else {})
    content = bytearray()
    with httpx.stream("GET", url, headers=headers, timeout=60, trust_env=False) as answer:
        answer.raise_for_status()
        for chunk in answer.iter_bytes():
            content += chunk
            if len(content) > MOST_BYTES:
                raise httpx.DecodingError("larger than this example reads")
        boundary = re.search(r'boundary="?([^";]+)', answer.headers.get("content-type", ""))
    if boundary is None:
        raise httpx.DecodingError("not multipart")
    for part in bytes(content).split(b"--" + boundary.group(1).encode())[1:-1]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that do not matter here
            yield dcmread(BytesIO(part.partition(b"\r\n\r\n")[2]), force=True)
