"""Work on what agents report, behind the requests: erasing persons."""
