# make demo: the paper's central result on this machine.  make test: every test.  make install: all that they need.
# make docs: the documentation as a site, in build/docs.
# make docs-numbers: the tables of README.md and docs/miniature.md and the gallery anew, from the store in results/ and docs/data/.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
TESTED := .venv/installed-test
DOCUMENTED := .venv/installed-docs
export PIP_NO_CACHE_DIR := 1
export UV_NO_CACHE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# A module is compiled when it is first imported, not all 20,000 of them at once, and kept: some containers forbid that.
unexport PYTHONDONTWRITEBYTECODE
# The compiled kernels' builder is found on PATH, and the same one must always be.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test check install docs docs-numbers clean

demo: $(INSTALLED)
	$(BIN)/ktrain run demo

test: $(TESTED)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=20

check: $(TESTED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python docs/check_links.py

# The variable silences the theme's notice about its successor.
docs: $(DOCUMENTED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file docs/site/mkdocs.yml
	@echo "site    build/docs/index.html (with search: $(BIN)/python -m http.server -b 127.0.0.1 -d build/docs)"

docs-numbers: $(INSTALLED)
	-$(BIN)/python docs/collect_results.py
	$(BIN)/python docs/draw_gallery.py
	$(BIN)/python docs/fill_tables.py

install: $(TESTED)

# Installs $(1) with uv, which loads and unpacks several packages at once, or, where uv cannot, with pip. uv does not read
# pip's settings, so it is told of indexes, trusted hosts, a certificate, a proxy and folders of wheels that they name, or
# that there is to be no index. As for pip, what a variable (:env:, here z, which is last) says goes before a file, and the
# best version of any index is taken.
define installed
	@$(BIN)/pip install --quiet -c constraints.txt uv || true
	@eval "$$($(BIN)/pip config list | sed -e 's/^:env:/z/' -e 's/\\n/ /g' -e "s/=' */='/" | LC_ALL=C sort | sed -n \
		-e "/\.find-links='/s/  */,/g" \
		-e "s/^.*\.index-url=\('[^']*'\)$$/export UV_DEFAULT_INDEX=\1/p" \
		-e "s/^.*\.extra-index-url=\('[^']*'\)$$/export UV_INDEX_STRATEGY=unsafe-best-match UV_INDEX=\1/p" \
		-e "s/^.*\.no-index='[1ty][a-z]*'$$/export UV_OFFLINE=1/p" \
		-e "s/^.*\.no-index='on'$$/export UV_OFFLINE=1/p" \
		-e "s/^.*\.no-index='.*$$/unset UV_OFFLINE/p" \
		-e "s/^.*\.proxy=\('[^']*'\)$$/export HTTP_PROXY=\1 HTTPS_PROXY=\1/p" \
		-e "s/^.*\.trusted-host=\('[^']*'\)$$/export UV_INSECURE_HOST=\1/p" \
		-e "s/^.*\.cert=\('[^']*'\)$$/export SSL_CERT_FILE=\1/p" \
		-e "s/^.*\.find-links=\('[^']*'\)$$/export UV_FIND_LINKS=\1/p")"; \
	$(BIN)/uv pip install --quiet --python $(BIN)/python $(1) \
	|| { echo "uv cannot; pip does, which takes longer"; $(BIN)/pip install --quiet $(1); }
endef

# DeepSpeed's build asks for torch, so torch is there first and the build is not isolated.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(call installed,-c constraints.txt torch==2.13.0 setuptools wheel ninja packaging psutil py-cpuinfo numpy)
	$(call installed,-c constraints.txt --no-build-isolation deepspeed)
	$(call installed,-c constraints.txt --no-build-isolation --editable .)
	touch $@

# What tests, clusters and developers need besides: a sweep on this machine does without.
$(TESTED): $(INSTALLED)
	$(call installed,-c constraints.txt --no-build-isolation --editable '.[test]')
	touch $@

$(DOCUMENTED): $(INSTALLED)
	$(call installed,-c constraints.txt --no-build-isolation --editable '.[docs]')
	touch $@

clean:
	rm -rf .venv .cache build
