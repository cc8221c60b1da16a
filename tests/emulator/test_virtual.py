import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tuner.catalog.gpu import Gpu, load_gpu
from tuner.catalog.model import ModelShape
from tuner.configuration import Configuration, Value
from tuner.emulator.refusal import LaunchRefusedError
from tuner.emulator.virtual import simulate, steady_power_w
from tuner.errors import UsageError
from tuner.measurement.steady_window import SteadyWindow, WindowPlan
from tuner.records import Load, RawRun, Request, RequestState, Source

Requests = Callable[[int, int], Iterator[Request]]


def window_j(run: RawRun) -> float:
    edges = [run.window_start_s, run.window_end_s]
    start, end = np.interp(edges, run.power.times_s, run.power.energy_j)
    return float(end - start)


def window_tokens(run: RawRun) -> int:
    times = np.concatenate([r.token_times_s for r in run.requests])
    return int(np.sum((times > run.window_start_s) & (times <= run.window_end_s)))


def energy_per_token_j(run: RawRun) -> float:
    return window_j(run) / window_tokens(run)


@pytest.fixture
def run_closed(
    h100: Gpu, llama: ModelShape, requests_of: Requests, counting_watch: Any
) -> Callable[..., RawRun]:
    def run(
        concurrency: int,
        *,
        prompt: int = 270,
        output: int = 120,
        noise: bool = False,
        seed: int = 0,
        device: dict[str, Value] | None = None,
        **flags: Value,
    ) -> RawRun:
        watch = counting_watch(2 * concurrency, 5 * concurrency)
        configuration = Configuration(flags=flags, device=device or {})
        requests = requests_of(prompt, output)
        load = Load(concurrency=concurrency)
        return simulate(llama, h100, configuration, requests, load, watch, seed=seed, noise=noise)

    return run


def test_closed_loop_keeps_the_concurrency(run_closed: Callable[..., RawRun]) -> None:
    run = run_closed(8)
    edges = [(r.sent_s, 1) for r in run.requests] + [(r.ended_s, -1) for r in run.requests]
    open_requests = list(itertools.accumulate(step for _, step in sorted(edges)))
    assert max(open_requests) == 8
    states = [r.state for r in run.requests]
    assert states.count(RequestState.DONE) == 40
    assert states.count(RequestState.CUT) == len(states) - 40 <= 8
    for record in run.requests:
        assert len(record.token_times_s) <= record.output_tokens
        assert np.all(np.diff(record.token_times_s) > 0)
        if record.state is RequestState.DONE:
            assert len(record.token_times_s) == record.output_tokens
            assert record.ended_s == record.token_times_s[-1] <= run.window_end_s
        else:
            assert record.ended_s == run.window_end_s
            assert np.all(record.token_times_s <= run.window_end_s)


def test_open_loop_sends_at_the_scheduled_times(
    h100: Gpu, llama: ModelShape, requests_of: Requests, fixed_watch: Any
) -> None:
    watch = fixed_watch(1.0, 5.0)
    load = Load(request_rate=4.0)
    run = simulate(
        llama, h100, Configuration(), requests_of(100, 20), load, watch, seed=0, noise=False
    )
    assert [r.scheduled_s for r in run.requests] == [i / 4.0 for i in range(21)]
    assert watch.events[0] == (0.0, "started")
    assert [what for _, what in watch.events].count("sent") == 21
    assert all(now_s <= 5.0 for now_s, _ in watch.events)
    first_token_s = run.requests[4].token_times_s[0] - run.requests[4].scheduled_s
    assert 0.006 < first_token_s < 0.05


def test_a_load_that_outruns_the_server_leaves_requests_waiting(
    h100: Gpu, llama: ModelShape, requests_of: Requests, fixed_watch: Any
) -> None:
    watch = fixed_watch(1.0, 4.0)
    run = simulate(
        llama,
        h100,
        Configuration(flags={"max_num_seqs": 4}),
        requests_of(200, 100),
        Load(request_rate=500.0),
        watch,
        seed=0,
    )
    assert max(now_s for now_s, _ in watch.events) <= 4.0
    assert run.server.waiting[-1] > 100
    assert run.server.running.max() == 4
    untouched = [r for r in run.requests if len(r.token_times_s) == 0]
    assert len(untouched) > 100
    assert all(r.state is RequestState.CUT for r in untouched)


def test_nothing_is_reported_after_the_end_of_the_window(
    h100: Gpu, llama: ModelShape, requests_of: Requests, fixed_watch: Any
) -> None:
    load = Load(concurrency=64)
    exact = fixed_watch(0.5, 2.0)
    run = simulate(llama, h100, Configuration(), requests_of(99, 9), load, exact, seed=0)
    last_s = max(r.token_times_s[-1] for r in run.requests if r.state is RequestState.DONE)
    shortened = fixed_watch(0.5, last_s - 1e-6)
    run = simulate(llama, h100, Configuration(), requests_of(99, 9), load, shortened, seed=0)
    assert run.window_end_s == last_s - 1e-6
    assert max(now_s for now_s, _ in shortened.events) <= run.window_end_s
    assert all(r.ended_s <= run.window_end_s for r in run.requests)


def test_a_window_in_which_nothing_ends_has_its_length(
    h100: Gpu, llama: ModelShape, requests_of: Requests
) -> None:
    watch = SteadyWindow(WindowPlan(window_s=60.0, begins_after_s=20.0, watches_backlog=False))
    requests, load = requests_of(100, 30_000), Load(concurrency=4)
    run = simulate(llama, h100, Configuration(), requests, load, watch, seed=0)
    assert not [r for r in run.requests if r.state is RequestState.DONE]
    assert (run.window_start_s, run.window_end_s) == (20.0, 80.0)


def test_timelines_cover_the_window_and_are_labelled_emulated(
    run_closed: Callable[..., RawRun],
) -> None:
    run = run_closed(4)
    power = run.power
    assert power.source is run.latency_source is Source.EMULATED
    assert {run.window_start_s, run.window_end_s} <= set(power.times_s)
    assert power.times_s[0] == 0.0
    assert power.times_s[-1] == run.window_end_s
    assert np.max(np.diff(power.times_s)) <= 0.1 + 1e-9
    assert np.all(np.diff(power.energy_j) > 0)
    integral = np.sum(power.power_w[1:] * np.diff(power.times_s))
    assert power.energy_j[-1] == pytest.approx(integral)
    np.testing.assert_array_equal(run.server.times_s, power.times_s)


def test_noise_is_seeded_small_and_can_be_turned_off(run_closed: Callable[..., RawRun]) -> None:
    exact = energy_per_token_j(run_closed(4))
    assert energy_per_token_j(run_closed(4, seed=9)) == exact
    noisy = [energy_per_token_j(run_closed(4, noise=True, seed=s)) for s in range(12)]
    assert energy_per_token_j(run_closed(4, noise=True, seed=3)) == noisy[3]
    assert len(set(noisy)) == 12
    assert 0.002 < np.std(noisy) / exact < 0.025
    assert np.mean(noisy) == pytest.approx(exact, rel=0.02)


def test_energy_per_token_falls_with_the_batch(run_closed: Callable[..., RawRun]) -> None:
    single = energy_per_token_j(run_closed(1, prompt=30))
    batched = energy_per_token_j(run_closed(256, prompt=30))
    assert 30 < single / batched < 100  # greedy: nothing is sorted


@pytest.mark.parametrize(
    ("concurrency", "j_per_token", "tok_s", "itl_ms"),
    [(8, 0.455, 1070, 7.3), (64, 0.1186, 5147, 11.5), (256, 0.0766, 9010, 26.1)],
)
def test_it_follows_published_rows_of_llama_8b_on_an_h100(
    h100: Gpu,
    llama: ModelShape,
    counting_watch: Any,
    concurrency: int,
    j_per_token: float,
    tok_s: float,
    itl_ms: float,
) -> None:
    """Rows of the ML.ENERGY benchmark v3 (chat, about 270 prompt and 399 output tokens).

    Its vLLM, 0.11, was told to schedule asynchronously, and its requests asked for top-p.
    """
    older = load_gpu(h100.name, "vllm-0.11")
    sorting = {"logit_bytes": older.logit_bytes + older.sorting_bytes}
    random = np.random.default_rng(1)
    prompt = np.ones(270, np.int32)
    requests = (
        Request(i, 0.0, prompt, 1 + int(random.gamma(1.25, 320.0))) for i in itertools.count()
    )
    run = simulate(
        llama,
        older.model_copy(update=sorting),
        Configuration(flags={"max_num_seqs": concurrency}),
        requests,
        Load(concurrency=2 * concurrency),  # there is always one more waiting
        counting_watch(2 * concurrency, 6 * concurrency),
        seed=0,
        noise=False,
    )
    rate = window_tokens(run) / (run.window_end_s - run.window_start_s)
    gaps = np.concatenate([np.diff(r.token_times_s) for r in run.requests])
    assert rate == pytest.approx(tok_s, rel=0.2)
    assert energy_per_token_j(run) == pytest.approx(j_per_token, rel=0.2)
    assert 1e3 * np.median(gaps) == pytest.approx(itl_ms, rel=0.2)


def test_a_power_limit_saves_energy_and_costs_decode_little(
    run_closed: Callable[..., RawRun],
) -> None:
    stock = run_closed(32, output=300)
    limited = run_closed(32, output=300, device={"power_limit_w": 450})
    assert energy_per_token_j(limited) < 0.95 * energy_per_token_j(stock)
    assert limited.window_end_s < 1.1 * stock.window_end_s
    assert limited.power.power_w.max() <= 450 * (1 + 1e-6)


def test_the_clock_is_the_locked_one_unless_a_limit_holds_it_lower(
    run_closed: Callable[..., RawRun],
) -> None:
    stock, locked, limited = (
        run_closed(32, output=300, device=device).power.sm_clock_mhz
        for device in ({}, {"sm_clock_mhz": 1395}, {"power_limit_w": 450})
    )
    assert stock is not None and locked is not None and limited is not None
    assert np.median(stock) == stock.max() == 1980.0
    assert set(locked) == {1395.0}
    assert 1000.0 < np.median(limited) < 1980.0


def test_two_gpus_are_faster_and_draw_more(run_closed: Callable[..., RawRun]) -> None:
    one, two = (run_closed(16, tensor_parallel_size=n) for n in (1, 2))
    assert two.window_end_s < one.window_end_s
    assert two.power.power_w.max() > 1.2 * one.power.power_w.max()


def test_too_long_a_request_fails_and_is_never_a_token(
    h100: Gpu, llama: ModelShape, counting_watch: Any
) -> None:
    short, long = np.ones(50, np.int32), np.ones(500, np.int32)
    requests = (Request(i, 0.0, long if i % 3 == 0 else short, 20) for i in itertools.count())
    run = simulate(
        llama,
        h100,
        Configuration(flags={"max_model_len": 128}),
        requests,
        Load(concurrency=4),
        counting_watch(10, 40),
        seed=0,
    )
    failed = [r for r in run.requests if r.state is RequestState.FAILED]
    assert {r.request_id % 3 for r in failed} == {0}
    assert all(len(r.token_times_s) == 0 for r in failed)
    assert all("maximum context length is 128 tokens" in str(r.error) for r in failed)
    done = [r for r in run.requests if r.state is RequestState.DONE]
    assert len(done) + len(failed) == 40


def test_a_load_of_failures_alone_comes_to_an_end(
    h100: Gpu, llama: ModelShape, requests_of: Requests, fixed_watch: Any
) -> None:
    run = simulate(
        llama,
        h100,
        Configuration(flags={"max_model_len": 128}),
        requests_of(500, 20),
        Load(concurrency=4),
        fixed_watch(100.0, 1e6),
        seed=0,
    )
    assert all(r.state is not RequestState.DONE for r in run.requests)
    assert run.window_start_s == run.window_end_s < 10.0


def test_refusals_and_typos(run_closed: Callable[..., RawRun]) -> None:
    with pytest.raises(LaunchRefusedError, match="No available memory"):
        run_closed(1, gpu_memory_utilization=0.1)
    with pytest.raises(UsageError, match="unknown emulated flag"):
        run_closed(1, max_num_sequences=3)
    with pytest.raises(UsageError, match="out of range"):
        run_closed(1, device={"power_limit_w": 10})


def test_environment_variables_are_refused_not_ignored(
    h100: Gpu, llama: ModelShape, requests_of: Requests, fixed_watch: Any
) -> None:
    configuration = Configuration(environment={"VLLM_ATTENTION_BACKEND": "FLASHINFER"})
    with pytest.raises(UsageError, match="not emulated: VLLM_ATTENTION_BACKEND"):
        simulate(
            llama,
            h100,
            configuration,
            requests_of(9, 9),
            Load(concurrency=1),
            fixed_watch(0, 1),
            seed=0,
        )


def test_a_thousand_requests_take_little_time(
    h100: Gpu, llama: ModelShape, requests_of: Requests, counting_watch: Any
) -> None:
    """The target is 1.5 s of one core; CPU time is asked, as other work may share the machine."""
    for concurrency in (1, 64):
        begun = time.process_time()
        simulate(
            llama,
            h100,
            Configuration(),
            requests_of(1024, 256),
            Load(concurrency=concurrency),
            counting_watch(100, 1000),
            seed=0,
        )
        assert time.process_time() - begun < 1.5


def test_steady_power_agrees_with_the_engine(
    h100: Gpu, llama: ModelShape, run_closed: Callable[..., RawRun]
) -> None:
    run = run_closed(32, prompt=200, output=200)
    seconds = run.window_end_s - run.window_start_s
    made = window_tokens(run) / seconds
    expected = window_j(run) / seconds
    power_w = steady_power_w(
        llama,
        h100,
        generation_tok_s=made,
        prompt_tok_s=made,
        running=32,
        mean_context_tokens=300,
    )
    assert power_w == pytest.approx(expected, rel=0.1)


def test_steady_power_of_nothing_is_idle_and_of_more_is_more(h100: Gpu, llama: ModelShape) -> None:
    def power_w(tok_s: float) -> float:
        return steady_power_w(
            llama,
            h100,
            generation_tok_s=tok_s,
            prompt_tok_s=0.0,
            running=8,
            mean_context_tokens=500,
        )

    assert power_w(0.0) == h100.loaded_idle_w
    assert power_w(0.0) < power_w(100.0) < power_w(900.0) < h100.default_limit_w
    assert power_w(1e6) <= h100.default_limit_w


def test_a_window_that_ended_before_it_was_known_has_no_request_from_after_it(
    h100: Gpu, llama: ModelShape, requests_of: Requests, counting_watch: Any
) -> None:
    class LateWatch(counting_watch):  # type: ignore[misc]
        def finished(self, now_s: float) -> None:
            super().finished(now_s)
            if self.window_end_s == now_s:
                self.window_end_s = now_s - 1.0

    watch = LateWatch(20, 60)
    load = Load(concurrency=4)
    run = simulate(llama, h100, Configuration(), requests_of(270, 60), load, watch, seed=0)
    assert run.window_end_s < watch.events[-1][0]
    assert max(r.sent_s for r in run.requests) <= run.window_end_s
    for record in run.requests:
        assert record.ended_s <= run.window_end_s
        assert record.token_times_s.size == 60 or record.state is RequestState.CUT
