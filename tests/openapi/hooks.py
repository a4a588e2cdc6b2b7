"""What a schema cannot say of requests that fit together."""

import itertools

import schemathesis

numbers = itertools.count()


@schemathesis.hook
def before_call(context, case, kwargs):
    headers = case.headers or {}
    key = headers.get("Idempotency-Key")
    if key is not None and case.meta is not None and case.meta.generation.mode.is_positive:
        # A key belongs to one request, and to one row that has its id.
        row = isinstance(case.body, dict) and case.body.get("id") is not None
        if "{id}" in case.path or row:
            headers["Idempotency-Key"] = f"{key.strip(chr(34))[:200]}-{next(numbers)}"
        else:
            del headers["Idempotency-Key"]
