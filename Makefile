# Every target sets up what it needs, works from a fresh clone with an empty HOME, and leaves nothing outside the clone.
.DEFAULT_GOAL := help
.PHONY: help demo site obstacles rehearse test clean environment

VENV := .venv
# The lane of a VENV other than .venv (scripts/lanes.sh); test.sh sets both.
LANE :=

# An inventory of your own: make site INVENTORY=hosts.yml. More for ansible-playbook: make site ARGS='--limit gpu3'.
INVENTORY ?=
ARGS ?=

# Ansible's own files, and the caches of the tools, stay in the clone instead of HOME.
export ANSIBLE_HOME := $(CURDIR)/.cache/ansible
export XDG_CACHE_HOME := $(CURDIR)/.cache
# Settings of the caller's shell that would put packages, or Python's own modules, elsewhere.
export PIP_USER := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONHOME PYTHONPATH PIP_TARGET PIP_PREFIX

help: ## Show these targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

demo: $(VENV)/runtime.stamp ## Provision a throwaway server over SSH, twice: the second run changes nothing
	@scripts/demo.sh

site: $(VENV)/runtime.stamp ## Provision this machine, or the servers of INVENTORY=…
	@scripts/system.sh site
	$(VENV)/bin/ansible-playbook $(if $(INVENTORY),--inventory $(INVENTORY)) site.yml $(ARGS)

obstacles: $(VENV)/runtime.stamp ## Show what keeps Detectron from working elsewhere, and that it does not here
	@scripts/obstacles.sh $(ARGS)

rehearse: $(VENV)/runtime.stamp ## Show what an unscaled learning-rate schedule does, and a scaled one, on the CPU
	@scripts/rehearse.sh $(ARGS)

test: $(VENV)/test.stamp ## Lint, unit tests and all scenarios, on throwaway servers; stops at the first failure
	@scripts/test.sh

clean: ## Stop the throwaway servers and remove all that make made, except the downloads in mirror/
	@scripts/clean.sh

environment: $(VENV)/test.stamp # for a developer's editor and shell: what `make test` uses, without the tests

# Missing, or a link to an interpreter that has gone.
$(VENV)/bin/python:
	@scripts/venv.sh $(VENV) $(LANE)

# Pins that changed get a fresh environment: a package that is no longer asked for would stay in the old one.
# (A new environment has no stamp.)
$(VENV)/runtime.stamp: requirements.txt scripts/venv.sh scripts/lanes.sh $(VENV)/bin/python
	@test ! -e $@ || scripts/venv.sh $(VENV) $(LANE)
	@echo "Installing requirements.txt"
	@$(VENV)/bin/python -m pip install --quiet --requirement requirements.txt
	@touch $@

$(VENV)/test.stamp: requirements-test.txt $(VENV)/runtime.stamp
	@echo "Installing requirements-test.txt"
	@$(VENV)/bin/python -m pip install --quiet --requirement requirements-test.txt
	@touch $@
