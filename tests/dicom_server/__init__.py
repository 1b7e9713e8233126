"""A simulator of Microsoft's DICOM server.

The real server needs SQL Server and blob storage and is no longer published as a runnable package, so it cannot be
installed beside the tests. This one is built from its published contract (routes, validation, limits, wire form,
meaning of the change feed), quirks included: what the tests prove, they prove against that contract.
"""
