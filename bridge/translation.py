"""Builds the translation that settings ask for. Part of the composition root."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from bridge.code_tables import dicom_columns, site_code_tables
from bridge.config import Identity, Settings
from bridge.ports import ImagingSource
from bridge.translate.codes import UnmappedCodes
from bridge.translate.identifiers import AeTitle, Issuers
from bridge.translate.site import Site
from bridge.translate.study import Translator


def translator(settings: Settings, sources: dict[str, ImagingSource]) -> Translator:
    """The translation as this site wants it. Raises ConfigError for a concept map that cannot be used."""
    endpoints = {name: source.endpoint for name, source in sources.items() if source.endpoint is not None}
    return Translator(site(settings), tuple(sources), endpoints, dicom_columns())


def site(settings: Settings) -> Site:
    """What a site decides about translation. Raises ConfigError for a concept map that cannot be used."""
    identity, translation = settings.identity, settings.translation
    tables = site_code_tables(
        translation.code_maps,
        translation.coding_schemes,
        UnmappedCodes(translation.unmapped_codes),
        translation.local_code_system,
    )
    dummies = frozenset(identity.dummy_birth_dates)
    return Site(tables, settings.zone, _issuers(identity), dummies, translation.maximum_instances)


def _issuers(identity: Identity) -> Issuers:
    return Issuers(
        identity.issuers,
        identity.patient_id_system,
        identity.accession_system,
        identity.study_id_system,
        identity.admission_id_system,
        identity.requested_procedure_id_system,
        {
            title: AeTitle(
                known.patient_id_system, known.accession_system, ZoneInfo(known.time_zone) if known.time_zone else None
            )
            for title, known in identity.ae_titles.items()
        },
        frozenset(value.casefold() for value in identity.unknown_patient_ids),
    )
