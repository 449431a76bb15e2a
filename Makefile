# Bare `make` lists the targets. The tools come from an active environment, or from what scripts/test.sh has set up.
PATH := $(CURDIR)/.venv-test/bin:$(PATH)
export PATH

.PHONY: help
help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

.PHONY: demo
demo: ## run the daemon on handwritten digits
	scripts/demo.sh

.PHONY: lint
lint: ## ruff: the code's form
	ruff check .
	ruff format --check .

.PHONY: type
type: ## mypy, strict
	mypy

.PHONY: test
test: ## every test
	scripts/test.sh

.PHONY: arm
arm: ## the wheel on emulated ARM boards: Debian, QEMU, some minutes each
	scripts/test_arm.sh
	scripts/test_arm.sh --trixie
	scripts/test_arm.sh --armhf

.PHONY: soak
soak: ## half an hour of faults, and 300 kills
	scripts/soak.sh

.PHONY: v4l2
v4l2: ## cameras of Linux's own drivers, in a virtual machine
	scripts/test_v4l2.sh

.PHONY: power
power: ## power cuts while outputs write, in a virtual machine
	scripts/test_power.sh

.PHONY: board
board: ## a board with systemd, its clock and its power cut, in a virtual machine
	scripts/test_board.sh

.PHONY: digits
digits: ## train the digits model anew and build its bundles
	examples/digits/build.sh

.PHONY: dist
dist: ## sdist, and the wheel made from it, into dist/
	rm -rf dist
	python -m build
	python -m twine check --strict dist/*

.PHONY: clean
clean: ## remove what was built and set up
	rm -rf build dist wheelhouse *.egg-info .demo .venv .venv-test .venv-build .venv-wheels .cache
