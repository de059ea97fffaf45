"""Result files of an evaluation, to be compared with those of another."""

import json


def read_results(run_dir):
    """Content of all result files, the JSON without clock and command, the NPZ to the byte."""
    found = {}
    for path in sorted((run_dir / "results").iterdir()):
        found[path.name] = path.read_bytes()
        if path.suffix == ".json":
            record = json.loads(path.read_text())
            for field in ("started", "wall_seconds", "command"):
                del record[field]
            found[path.name] = record
    return found
