"""Inside a notebook, where an event loop runs already, the Python face works as anywhere else."""

import nbformat
from nbclient import NotebookClient
from stand import Stand


def test_sync_and_reading_work_inside_a_notebook_s_event_loop(stand: Stand) -> None:
    stand.jobs = '[jobs.daily]\nvendor = "qos"\nsymbols = ["600519.SH", "AAPL.US"]\nfreq = ["1d"]\nstart = "2026-11-02"\n'
    stand.write()
    cells = [
        "import asyncio, klake\nassert asyncio.get_running_loop().is_running()",
        "klake.plan('daily').requests",
        "klake.sync('daily').exit_code",
        "klake.open('lake').bars(['600519.SH', 'AAPL.US']).panel('close').shape",
        "klake.open('lake').sql('SELECT count(*) AS n FROM bars_1d').pl()['n'][0] > 20",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])

    NotebookClient(
        book, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(stand.folder)}}
    ).execute()

    said = [cell.outputs[0]["data"]["text/plain"] for cell in book.cells[1:]]
    assert said == ["1", "0", "(15, 3)", "True"]
