"""What the synthetic hospital knows of medicine: names, diseases, drugs, imaging. Plain tables."""

from __future__ import annotations

from dataclasses import dataclass

SCT, ICDO, ATC, LOINC = (
    "http://snomed.info/sct",
    "urn:oid:2.16.840.1.113883.6.43.1",
    "http://www.whocc.no/atc",
    "http://loinc.org",
)


@dataclass(frozen=True)
class Name:
    """A synthetic name: family, given; ideographic and phonetic groups as DICOM writes them; its character set."""

    family: str
    given: str
    ideographic: str = ""
    phonetic: str = ""
    charset: tuple[str, ...] = ("ISO_IR 192",)


@dataclass(frozen=True)
class Imaging:
    """An imaging procedure: modality, body part (PS3.16 Annex L), description, LOINC of its report, its normal text."""

    modality: str
    body_part: str
    description: str
    loinc: str
    text: str


@dataclass(frozen=True)
class Disease:
    """A disease: SNOMED CT code, ages it occurs at, how common, ATC codes given, imaging done."""

    code: str
    display: str
    ages: tuple[int, int]
    weight: int
    drugs: tuple[str, ...]
    imaging: tuple[str, ...]


WESTERN = (
    ("Bauer", "Anna", "F"), ("Gruber", "Josef", "M"), ("Novak", "Petra", "F"), ("Silva", "Miguel", "M"),
    ("Rossi", "Giulia", "F"), ("Smith", "Alice", "F"), ("Jones", "Robert", "M"), ("Dubois", "Claire", "F"),
    ("Okafor", "Chidi", "M"), ("Haddad", "Layla", "F"), ("Larsen", "Erik", "M"), ("Kowalski", "Jan", "M"),
    ("Patel", "Asha", "F"), ("Nguyen", "Minh", "M"), ("Garcia", "Lucia", "F"), ("Weber", "Hans", "M"),
    ("Moreau", "Louis", "M"), ("Yilmaz", "Elif", "F"), ("Costa", "Paulo", "M"), ("Horvath", "Eva", "F"),
)  # fmt: skip

WORLD = (
    (Name("Yamada-Test", "Tarou", "試験山田^太郎", "しけんやまだ^たろう", ("", "ISO 2022 IR 87")), "M"),
    (Name("Suzuki-Test", "Hanako", "試験鈴木^花子", "しけんすずき^はなこ", ("ISO_IR 192",)), "F"),
    (Name("Hong-Test", "Gildong", "洪試驗^吉洞", "홍시험^길동", ("", "ISO 2022 IR 149")), "M"),
    (Name("Wang-Test", "XiaoDong", "王测试^小东", "", ("GB18030",)), "M"),
    (Name("Müller-Test", "Jürgen", charset=("ISO_IR 100",)), "M"),
    (Name("Łukasiewicz-Test", "Zoë", charset=("ISO_IR 192",)), "F"),
    (Name("Тестова", "Люкceмбypг", charset=("ISO_IR 144",)), "F"),
    (Name("Δοκιμή", "Διονυσία", charset=("ISO_IR 126",)), "F"),
)

DRUGS = {
    "L01XA01": ("cisplatin", "120 mg/m2 IV every 21 days"),
    "L01DB01": ("doxorubicin", "37.5 mg/m2 IV on two days every 21 days"),
    "L01BA01": ("methotrexate", "12 g/m2 IV over 4 h with folinic acid rescue"),
    "L01AA06": ("ifosfamide", "2.8 g/m2 IV daily for 5 days"),
    "A04AA01": ("ondansetron", "8 mg by mouth twice a day on treatment days"),
    "L03AA02": ("filgrastim", "5 µg/kg SC daily from day 5"),
    "A10BA02": ("metformin", "850 mg by mouth twice a day"),
    "C08CA01": ("amlodipine", "5 mg by mouth once a day"),
    "C09AA05": ("ramipril", "5 mg by mouth once a day"),
    "C10AA05": ("atorvastatin", "40 mg by mouth at night"),
    "R03AC02": ("salbutamol", "2 puffs as needed"),
    "J01CA04": ("amoxicillin", "1 g by mouth three times a day for 7 days"),
    "N02BE01": ("paracetamol", "1 g by mouth up to four times a day"),
    "M01AE01": ("ibuprofen", "400 mg by mouth three times a day"),
    "B01AB05": ("enoxaparin", "40 mg SC once a day"),
    "B01AC06": ("acetylsalicylic acid", "100 mg by mouth once a day"),
    "L02BA01": ("tamoxifen", "20 mg by mouth once a day"),
}

IMAGING = {
    "CT chest": Imaging(
        "CT", "CHEST", "CT chest with contrast", "24627-2",
        "Lungs clear. No nodule above 4 mm. No pleural effusion. Mediastinal nodes not enlarged.",
    ),
    "CT knee": Imaging(
        "CT", "KNEE", "CT knee", "24627-2",
        "Destructive lesion of the distal femoral metaphysis with cloud-like osteoid matrix and Codman triangle.",
    ),
    "CT abdomen": Imaging(
        "CT", "ABDOMEN", "CT abdomen", "18748-4", "Liver, spleen and kidneys unremarkable. No free fluid."
    ),
    "CT head": Imaging("CT", "HEAD", "CT head without contrast", "18748-4", "No intracranial haemorrhage. No mass."),
    "MR knee": Imaging(
        "MR", "KNEE", "MR knee", "18748-4", "Marrow-replacing lesion with soft-tissue component; neurovascular bundle free."
    ),
    "MR head": Imaging("MR", "HEAD", "MR head", "18748-4", "No diffusion restriction. No mass effect."),
    "CR chest": Imaging("CR", "CHEST", "Chest PA and lateral", "18748-4", "Heart size normal. No consolidation."),
    "CR hand": Imaging("CR", "HAND", "Hand two views", "18748-4", "No fracture. Joint spaces preserved."),
    "US abdomen": Imaging(
        "US", "ABDOMEN", "Ultrasound abdomen", "18748-4", "Gallbladder with calculi. Bile ducts not dilated."
    ),
    "US breast": Imaging("US", "BREAST", "Ultrasound breast", "18748-4", "Irregular hypoechoic mass; biopsy advised."),
}  # fmt: skip

DISEASES = (
    Disease("38341003", "Hypertensive disorder, systemic arterial (disorder)", (40, 95), 30, ("C08CA01", "C09AA05"), ()),
    Disease("44054006", "Diabetes mellitus type 2 (disorder)", (40, 90), 20, ("A10BA02", "C10AA05"), ()),
    Disease("13645005", "Chronic obstructive lung disease (disorder)", (45, 90), 12, ("R03AC02",), ("CR chest", "CT chest")),
    Disease("233604007", "Pneumonia (disorder)", (1, 95), 14, ("J01CA04", "N02BE01"), ("CR chest",)),
    Disease("254837009", "Malignant neoplasm of breast (disorder)", (35, 90), 8, ("L02BA01",), ("US breast", "CT chest")),
    Disease("254637007", "Non-small cell lung cancer (disorder)", (45, 88), 8, ("L01XA01", "A04AA01"), ("CT chest", "MR head")),
    Disease("230690007", "Cerebrovascular accident (disorder)", (50, 95), 8, ("B01AC06", "C10AA05"), ("CT head", "MR head")),
    Disease("125605004", "Fracture of bone (disorder)", (3, 95), 14, ("M01AE01", "B01AB05"), ("CR hand",)),
    Disease("235919008", "Gallbladder calculus (disorder)", (25, 90), 10, ("N02BE01",), ("US abdomen", "CT abdomen")),
    Disease("396275006", "Osteoarthritis (disorder)", (45, 95), 14, ("M01AE01",), ("CR hand",)),
)  # fmt: skip

OSTEOSARCOMA = ("307576001", "Osteosarcoma of bone (disorder)")
OSTEOSARCOMA_ICDO = ("9180/3", "Osteosarcoma, NOS")
OSTEOSARCOMA_DRUGS = ("L01XA01", "L01DB01", "L01BA01", "L01AA06", "A04AA01", "L03AA02")

LABS = (
    ("6768-6", "Alkaline phosphatase [Enzymatic activity/volume] in Serum or Plasma", 35, 130, "U/L"),
    ("2160-0", "Creatinine [Mass/volume] in Serum or Plasma", 0.6, 1.3, "mg/dL"),
    ("718-7", "Hemoglobin [Mass/volume] in Blood", 10.5, 16.5, "g/dL"),
    ("29463-7", "Body weight", 45, 105, "kg"),
    ("8302-2", "Body height", 150, 195, "cm"),
)

SCANNERS = {
    "CT": (("Fictive Imaging", "FI CT 64"), ("Example Medical", "Spiral One")),
    "MR": (("Fictive Imaging", "FI MR 1.5"), ("Example Medical", "Resonance 3")),
    "CR": (("Sample Radiography", "SR Plate 2"),),
    "US": (("Imaginary Ultrasound", "IU Linear"),),
}
