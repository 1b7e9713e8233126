"""`cohort fetch`: the images of a cohort as files, by WADO-RS or C-GET; resumable, and checked against the lake."""
