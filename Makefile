CARGO ?= cargo
PREFIX ?= /usr/local
DESTDIR ?=

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
# The folder that `make install` takes the programs from.
PROGRAMS ?= $(TARGET_DIR)/release
BINS := clavel claveld clavel-agent
UNITS := systemd/claveld.service systemd/claveld-signer.service systemd/claveld-signer.socket systemd/clavel-agent.service systemd/clavel-way-back.service
# The Nix that the tests run with: path, newest or floor. scripts/with-nix explains the three.
NIX ?= path

.PHONY: needs help build demo test test-machines test-power bench fuzz lint deny generate install clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# Every target that compiles needs a C compiler, pkg-config and OpenSSL. If they are there, the script prints nothing.
build demo test test-machines test-power bench lint generate: needs
needs:
	@scripts/setup build

build: ## the three programs, optimised, in target/release
	$(CARGO) build --locked --release --bins

demo: ## a fleet on this machine: evaluated, published, fetched and switched
	@scripts/setup nix
	$(CARGO) build --locked --bins
	@CLAVEL_PROGRAMS='$(abspath $(TARGET_DIR))/debug' scripts/demo

test: ## every test, with the Nix on the PATH; NIX=newest and NIX=floor take another
	@scripts/setup test
	scripts/with-nix $(NIX) $(CARGO) test --locked

test-machines: ## the agent on booted machines, under its own unit; needs root
	@scripts/setup machines
	@scripts/machine lay '$(abspath $(TARGET_DIR))/machines/debian'
	$(CARGO) test --locked --test machines

test-power: ## a dozen power cuts of an emulated machine; CLAVEL_POWER_POINTS=100 for more; needs root
	@scripts/setup power
	@scripts/machine lay '$(abspath $(TARGET_DIR))/machines/debian'
	@scripts/power lay '$(abspath $(TARGET_DIR))/machines/qemu'
	$(CARGO) test --locked --test power -- --nocapture

bench: ## what Clavel costs, measured
	@scripts/setup test
	$(CARGO) bench --locked

fuzz: ## a minute of random bytes for each parser; needs a nightly compiler and cargo-fuzz
	@scripts/fuzz

lint: ## formatting, clippy and the documentation, where a warning is an error
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --test machines --test power -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps

deny: ## licences, advisories and origins of the dependencies
	@$(CARGO) deny --version >/dev/null 2>&1 || \
	  { echo "cargo-deny is missing: cargo install cargo-deny --locked" >&2; exit 1; }
	$(CARGO) deny --locked check

generate: ## man pages, completions, schemas and the test vectors of the format
	$(CARGO) run --locked --example generate

# Man pages may be anywhere below share/man. Every other file below share/ has the path that it gets below PREFIX.
install: build ## the programs and what belongs to them, below DESTDIR and PREFIX (/usr/local)
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(PREFIX)/lib/systemd/system' '$(DESTDIR)$(PREFIX)/lib/sysusers.d'
	install -m 755 $(BINS:%=$(PROGRAMS)/%) '$(DESTDIR)$(PREFIX)/bin'
	@for unit in $(UNITS); do \
	  sed 's|/usr/local/bin|$(PREFIX)/bin|' "$$unit" > '$(DESTDIR)$(PREFIX)/lib/systemd/system/'"$${unit##*/}"; \
	  chmod 644 '$(DESTDIR)$(PREFIX)/lib/systemd/system/'"$${unit##*/}"; \
	done
	install -D -m 755 -t '$(DESTDIR)$(PREFIX)/share/clavel/hooks' hooks/post-receive hooks/pre-receive
	install -m 644 systemd/claveld.sysusers '$(DESTDIR)$(PREFIX)/lib/sysusers.d/claveld.conf'
	@if test -d share/man; then find share/man -type f -name '*.[1-8]'; fi | while read -r page; do \
	  install -D -m 644 "$$page" '$(DESTDIR)$(PREFIX)/share/man/man'"$${page##*.}/$${page##*/}"; \
	done
	@if test -d share; then find share -type f ! -path 'share/man/*'; fi | while read -r file; do \
	  install -D -m 644 "$$file" '$(DESTDIR)$(PREFIX)/'"$$file"; \
	done

clean: ## what was built
	$(CARGO) clean
