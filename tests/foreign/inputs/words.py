import collections
import json
import pathlib
import sys

text = pathlib.Path(sys.argv[1]).read_text()
counts = collections.Counter(text.lower().split())
pathlib.Path(sys.argv[2]).write_text(json.dumps(counts.most_common(5)))
print(sum(counts.values()), "words")
