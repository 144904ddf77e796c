"""The benchmarks run; what they measure is nobody's business here."""

from __future__ import annotations

from bench.report import Bench, Figure, table
from bench.servers import ours, stock
from bench.streaming import stream
from bench.swarm import swarm
from bench.work import Work


def test_a_run_is_streamed_by_both_stacks() -> None:
    work = Work(events=50, hold=True)
    with ours(conversations__delta_bytes=1) as here, stock() as there, swarm() as clients:
        for server in (here, there):
            result = stream(server, clients, "smoke", 2, work)
            assert result.deliveries == 100
            assert result.received_bytes > 100 * 140


def test_a_paced_run_tells_how_late_each_text_was() -> None:
    work = Work(events=20, rate=1_000, stamped=True, hold=True)
    with stock() as server, swarm() as clients:
        latencies_ns = stream(server, clients, "smoke", 1, work).latencies_ns
    assert len(latencies_ns) == 20
    assert min(latencies_ns) > 0


def test_a_table_says_whether_a_target_is_met() -> None:
    figures = [
        Figure(name="a", unit="ms", ours=2.0, baseline=1.0, target=3),
        Figure(name="b", unit="ms", ours=9.0, target=5, of="value"),
        Figure(name="c", unit="ms", ours=0.7, baseline=0.1, target=0.5, of="difference"),
        Figure(name="d", unit="/s", ours=6.0, baseline=10.0, target=0.5, at_least=True),
    ]
    assert [figure.met for figure in figures] == [True, False, False, True]
    shown = table(Bench("name", "stock", figures)).splitlines()
    assert len({len(line) for line in shown}) == 1
    assert "≤ +0.5 ms" in shown[4]
