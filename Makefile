# Needs Python 3.11 or newer and a package index, nothing else: every target sets itself up.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-nights test-wheel test-pythons test-vllm test-omni test-answers test-chromium bench bench-emulator bench-search bench-spaces bench-deployable bench-launch bench-plan bench-cards test-ray test-mlflow image docs audit chaos fuzz soak fix clean

demo: $(VENV)/installed  ## a study on the emulated H100, in a minute
	@echo "A study of 60 trials on an emulated H100: one to two minutes on two cores."
	$(BIN)/tuner run --emulate H100-SXM --model meta-llama/Llama-3.1-8B-Instruct \
	    --workload chat --request-rate 4 --space power --slo 'p99_tpot_ms<=25' \
	    --slo 'p99_ttft_ms<=500' --trials 60 --max-window-s 40 \
	    --store results/demo.db
	@echo "next: $(BIN)/tuner recommend --store results/demo.db"
	@echo "      $(BIN)/tuner report --store results/demo.db"

# One thread each for the matrices of three workers on two cores: more only wait for one another.
# Compiled modules are kept, also where the environment says no: the tests start hundreds of tuners.
test: $(VENV)/installed-dev  ## lint, types, and every test that needs no service of its own
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	env -u PYTHONDONTWRITEBYTECODE OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 \
	    bash .ci/on-memory-disk.sh $(BIN)/pytest -n 3 --dist worksteal --durations=10 \
	    -m "not night and not vllm and not omni and not chromium and not chaos and not fuzz and not package and not ray and not mlflow"

# Their files alone, here and below: to collect all would take longer than some of them.
test-nights: $(VENV)/installed-dev  ## the dozen heaviest whole studies: kills, databases that go away, real time
	env -u PYTHONDONTWRITEBYTECODE OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 \
	    bash .ci/on-memory-disk.sh $(BIN)/pytest -n 3 --dist worksteal --durations=12 -m "night" \
	    $$(grep -rl --include='test_*.py' 'pytest\.mark\.night' tests)

test-wheel: $(VENV)/installed-dev  ## the wheel and the sdist: built, installed in three ways, used
	$(BIN)/pytest -m package --durations=10 tests/packaging

test-pythons:  ## the fast tests on every Python that is here, and with the oldest dependencies
	bash .ci/pythons.sh

# Two at once: a launch mostly imports, on one core. The studies come last, and have both.
test-vllm: $(VENV)/installed-dev  ## the tests on a real vLLM (CPU build, set up once and kept)
	vllm=$$(bash .ci/vllm-cpu.sh) || exit 1; \
	    if [ -n "$$vllm" ]; then export TUNER_VLLM="$$vllm"; fi; \
	    $(BIN)/pytest -m "vllm and not ray" -n 2 --dist worksteal --durations=20 \
	        --deselect tests/study/test_live_study.py \
	        $$(grep -rlE --include='test_*.py' 'pytest\.mark\.vllm|needs_vllm\(' tests) \
	    && $(BIN)/pytest -m vllm --durations=2 tests/study/test_live_study.py

test-answers: $(VENV)/installed-dev  ## drafts and the quality gate on a real vLLM and model (minutes on two quiet cores)
	vllm=$$(bash .ci/vllm-cpu.sh) && model=$$(bash .ci/small-model.sh) || exit 1; \
	    env $${vllm:+TUNER_VLLM="$$vllm"} $${model:+TUNER_SMALL_MODEL="$$model"} \
	    $(BIN)/pytest -m vllm tests/study/test_answers_on_vllm.py

test-omni: $(VENV)/installed-dev  ## a study of images on a real vLLM-Omni (CPU, set up once and kept: 7 GB)
	omni=$$(bash .ci/vllm-omni-cpu.sh) || exit 1; \
	    env $${omni:+TUNER_OMNI="$$omni"} $(BIN)/pytest -m omni

test-chromium: $(VENV)/installed-dev  ## the HTML report in a headless Chromium (apt-get install chromium)
	$(BIN)/pytest -s -m chromium $$(grep -rl --include='test_*.py' 'pytest\.mark\.chromium' tests)

bench: $(VENV)/installed-dev  ## costs and accuracy, each as a ratio measured in one run
	$(BIN)/python benchmarks/bench_start.py
	$(BIN)/python benchmarks/bench_reading.py
	$(BIN)/python benchmarks/bench_sampling.py
	$(BIN)/python benchmarks/bench_client.py
	$(BIN)/python benchmarks/bench_client_truth.py
	TUNER_VLLM="$$(bash .ci/vllm-cpu.sh)" TUNER_VLLM_RS="$$(bash .ci/vllm-rs.sh)" \
	    TUNER_GUIDELLM="$$(bash .ci/guidellm.sh)" TUNER_AIPERF="$$(bash .ci/aiperf.sh)" \
	    $(BIN)/python benchmarks/bench_client_peers.py
	PYTHONPATH=tests:. $(BIN)/python -m benchmarks.bench_windows --windows 20 --seeds 2 --cases 0 1
	PYTHONPATH=tests:. $(BIN)/python -m benchmarks.bench_early_end --trials 15
	$(BIN)/python benchmarks/bench_emulator.py
	$(BIN)/python benchmarks/bench_engine.py
	PYTHONPATH=tests:. $(BIN)/python -m benchmarks.bench_report

# ROWS: CSVs of measured rows; LENGTHS: output lengths, for those of the ML.ENERGY benchmark
bench-emulator: $(VENV)/installed-dev  ## the emulator beside measured rows (make bench-emulator ROWS=...)
	$(BIN)/python benchmarks/bench_accuracy.py $(ROWS) $(if $(LENGTHS),--lengths $(LENGTHS))

bench-search: $(VENV)/installed-dev  ## the search beside other methods, in virtual time (hours)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_search_time.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_foreign.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_foreign.py --method ours --batch 8
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_search.py

bench-spaces: $(VENV)/installed-dev  ## what each search space saves, and how soon it is found (minutes)
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_spaces.py

bench-deployable: $(VENV)/installed-dev  ## recommendations on traffic not seen, in virtual time
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_deployable.py
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_headroom.py
	PYTHONPATH=tests:. OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 \
	    $(BIN)/python -m benchmarks.bench_confirmed

bench-launch: $(VENV)/installed-dev  ## forked servers beside ordinary launches of a real vLLM (half an hour)
	TUNER_VLLM="$$(bash .ci/vllm-cpu.sh)" $(BIN)/python benchmarks/bench_launch.py

bench-plan: $(VENV)/installed-dev  ## plans of three days, judged on other days (half an hour)
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench_plan.py

bench-cards: $(VENV)/installed-dev  ## several cards in virtual time, and what Ray costs (an hour)
	for part in speed front studies scale ray; do \
	    OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 PYTHONPATH=tests:. \
	        $(BIN)/python -m benchmarks.bench_cards $$part || exit 1; \
	done

test-mlflow: $(VENV)/installed-dev  ## a study in a real MLflow server, and in Weights & Biases (offline)
	TUNER_MLFLOW="$$(bash .ci/mlflow.sh)" $(BIN)/pytest -m mlflow

docs: $(VENV)/installed-dev  ## the documentation as a site, in build/site; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/site

image:  ## the container image, where docker or buildah can build one (downloads vLLM's, 10 GB)
	@if docker info >/dev/null 2>&1; then docker build --tag tuner .; \
	elif command -v buildah >/dev/null; then buildah build --tag tuner .; \
	else echo "NOT BUILT: neither a docker daemon nor buildah is here"; fi

test-ray: $(VENV)/installed-dev  ## benches on a Ray cluster of this host, two real vLLMs among them
	$(BIN)/pip install --quiet 'ray>=2.60'
	vllm=$$(bash .ci/vllm-cpu.sh) || exit 1; \
	    env $${vllm:+TUNER_VLLM="$$vllm"} $(BIN)/pytest -m "ray and not chaos" --durations=10 \
	        $$(grep -rl --include='test_*.py' 'pytest\.mark\.ray' tests)

# Three nights side by side, which mostly wait; the rest one by one.
chaos: $(VENV)/installed-dev  ## processes killed at seeded instants (make chaos CHAOS_KILLS=300)
	$(if $(CHAOS_KILLS),CHAOS_KILLS=$(CHAOS_KILLS)) OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 \
	    $(BIN)/pytest -m chaos -n 3 tests/chaos/test_roles.py
	$(BIN)/pytest -m chaos --deselect tests/chaos/test_roles.py

# The law of each kind of fault met in the field, where it is told apart: more than hostile input.
LAWS := tests/servers/vllm/log/test_any_version.py tests/emulator/http/test_flag_numbers.py \
    tests/servers/openai/test_text_stream.py tests/store/imports/test_bench_serve.py

soak: $(VENV)/installed-dev  ## 2,000 trials on one study, three studies at once: memory and disk
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python benchmarks/soak.py

audit: $(VENV)/installed-dev  ## weaknesses in the code (bandit), known ones in the dependencies
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml tuner
	bash .ci/audit.sh $(BIN)

fuzz: $(VENV)/installed-dev  ## 20,000 hostile stores, files, logs, streams and replies, in 500 MB
	FUZZ_CASES=600 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 \
	    $(BIN)/pytest tests/fuzz $(LAWS) --timeout 1800

fix: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/installed-dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) .venv-* build dist *.egg-info
