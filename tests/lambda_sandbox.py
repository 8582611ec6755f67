"""One sandbox of a simulated AWS Lambda: takes events from the Runtime API and gives them to a handler.

    AWS_LAMBDA_RUNTIME_API=127.0.0.1:9001 python lambda_sandbox.py lambda_function.handler

The Runtime API: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import importlib
import json
import os
import sys
import urllib.request


def main() -> None:
    api = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/invocation"
    module, _, name = sys.argv[1].rpartition(".")
    handler = getattr(importlib.import_module(module), name)
    while True:
        with urllib.request.urlopen(f"{api}/next") as event:
            request_id = event.headers["Lambda-Runtime-Aws-Request-Id"]
            answer = handler(json.load(event), None)
        data = json.dumps(answer).encode()
        urllib.request.urlopen(f"{api}/{request_id}/response", data=data).close()


if __name__ == "__main__":
    main()
