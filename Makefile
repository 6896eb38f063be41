# Forwards to run.py, for hands that type make: `make test` is `python run.py test`.
.PHONY: serve test check e2e lock chaos
serve test check e2e lock chaos:
	@python3 run.py $@
