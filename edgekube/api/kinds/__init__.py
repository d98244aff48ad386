"""One file per kind or close family: everything that is special about it. `edgekube.api.catalog.KINDS` lists them all."""
