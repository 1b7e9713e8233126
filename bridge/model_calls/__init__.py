"""Models called over HTTP for studies that match their rules; their answers kept like results that are sent."""
