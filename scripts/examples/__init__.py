"""The example workflows, each described once; `scripts/build_workflows.py` writes their canvas and API forms."""
