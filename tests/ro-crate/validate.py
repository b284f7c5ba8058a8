"""Validates an RO-Crate against the profiles that it names, without a network.

usage: validate.py CACHE CRATE
"""

import json
import sys
from pathlib import Path

from rocrate_validator.models import ValidationSettings
from rocrate_validator.services import validate

PROFILES = {
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "workflow-ro-crate-1.0",
    "https://w3id.org/ro/wfrun/process/0.5": "process-run-crate-0.5",
    "https://w3id.org/ro/wfrun/workflow/0.5": "workflow-run-crate-0.5",
    "https://w3id.org/ro/wfrun/provenance/0.5": "provenance-run-crate-0.5",
}


def issues(crate, profile, cache):
    settings = ValidationSettings(rocrate_uri=str(crate), profile_identifier=profile, offline=True, cache_path=cache)
    return [f"{profile}: {issue.message}" for issue in validate(settings).get_issues()]


def main():
    cache, crate = map(Path, sys.argv[1:])
    graph = json.loads((crate / "ro-crate-metadata.json").read_bytes())["@graph"]
    root = next(entity for entity in graph if entity["@id"] == "./")
    profiles = ["ro-crate-1.1"] + [PROFILES[profile["@id"]] for profile in root["conformsTo"]]
    found = [issue for profile in profiles for issue in issues(crate, profile, cache)]
    print(f"{len(profiles)} profiles, {len(found)} issues")
    if found:
        sys.exit("\n".join(found))


main()
