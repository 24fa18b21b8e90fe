"""Makes the fakes beside these tests importable, here and in the processes that tests start."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

pytest.importorskip("websockets", reason="serving needs the extra: pip install 'forethought[serve]'")
pytest.importorskip("msgpack", reason="serving needs the extra: pip install 'forethought[serve]'")


@pytest.fixture
def start():
    """Starts servers, returns their addresses, and ends them with the test."""
    from serving_fakes import Running

    running = []

    def run(server, **options) -> str:
        running.append(Running(server, **options))
        return running[-1].url

    run.running = running
    yield run
    for one in running:
        one.stop()


@pytest.fixture
def connect():
    """Opens raw connections, closed with the test."""
    from serving_fakes import RawClient

    opened = []

    def client(url: str, **options) -> RawClient:
        opened.append(RawClient(url, **options))
        return opened[-1]

    yield client
    for one in opened:
        one.close()
