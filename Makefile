# For users of make: `make test` is `python run.py test`.
.PHONY: serve test train bench chaos check e2e lock install
serve test train bench chaos check e2e lock install:
	@python3 run.py $@
