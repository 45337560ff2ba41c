"""Opens a timeline in Perfetto's own trace processor and prints what it found, as JSON.

usage: python open_trace.py TRACE. Needs the package `perfetto` from PyPI, which downloads the trace processor when it is first
used. Ends with 3 if that cannot be had, so that the caller can tell this from a trace that is wrong.
"""

import json
import sys

from perfetto.trace_processor import TraceProcessor

try:
    processor = TraceProcessor(trace=sys.argv[1])
except Exception as e:  # the package raises whatever its downloader, or the child process, ended with
    print(f"the trace processor cannot be started: {e}", file=sys.stderr)
    sys.exit(3)


def rows(sql):
    return [dict(row.__dict__) for row in processor.query(sql)]


found = {
    "errors": rows("select name, value from stats where severity = 'error' and value > 0"),
    "slices": rows("select category, count(*) as n from slice group by category"),
    "flows": rows(
        """
        select o.category as source, i.category as target, count(*) as n
        from flow join slice o on flow.slice_out = o.id join slice i on flow.slice_in = i.id
        group by 1, 2
        """
    ),
    "nested": rows(
        """
        select p.category as outer, c.category as inner, count(*) as n
        from slice c join slice p on c.parent_id = p.id group by 1, 2
        """
    ),
    "threads": [r["name"] for r in rows("select name from thread where name is not null order by name")],
}
processor.close()
json.dump(found, sys.stdout)
