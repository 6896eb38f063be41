# Forwards to run.py, for hands that type make: `make test` is `python run.py test`.
.PHONY: serve test check e2e lock chaos bench
serve test check e2e lock chaos bench:
	@python3 run.py $@
