# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Inference: predictions of many images, results as DICOM and FHIR, the DICOM node and the web page."""
