"""A loopback endpoint of the AWS Price List's Query API and of Bedrock's agreement offers: real HTTP, real botocore."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Product = dict[str, Any]


Rates = list[dict[str, str]]


class PriceListServer:
    """Serves products by service code, ``page_size`` a page. ``broken``: (service code, page) -> what to answer in its
    place. ``throttled``: so many requests are turned down first. ``offers``: by model id; None: access is denied."""

    def __init__(self, products: dict[str, list[Product]], offers: dict[str, Rates] | None = None) -> None:
        self.products = products
        self.offers = offers
        self.page_size = 100
        self.throttled = 0
        self.broken: dict[tuple[str, int], str] = {}
        self.requests: list[tuple[str, int]] = []
        self.asked_offers: list[str] = []
        self.url = ""

    def products_answer(self, request: dict[str, Any]) -> tuple[int, str]:
        if self.throttled > 0:
            self.throttled -= 1
            return 400, json.dumps({"__type": "ThrottlingException", "Message": "Rate exceeded"})
        code = request["ServiceCode"]
        page = int(request.get("NextToken", "1"))
        self.requests.append((code, page))
        if (code, page) in self.broken:
            return 200, self.broken[code, page]
        assert request["MaxResults"] <= 100
        assert request["FormatVersion"] == "aws_v1"
        found = self.products.get(code, [])
        for each in request.get("Filters", []):
            assert (each["Type"], each["Field"]) == ("TERM_MATCH", "regionCode")
            found = [one for one in found if one["product"]["attributes"].get("regionCode") == each["Value"]]
        start = (page - 1) * self.page_size
        answer: dict[str, Any] = {
            "FormatVersion": "aws_v1",
            "PriceList": [json.dumps(product) for product in found[start : start + self.page_size]],
        }
        if start + self.page_size < len(found):
            answer["NextToken"] = str(page + 1)
        return 200, json.dumps(answer)

    def offers_answer(self, model: str) -> tuple[int, str]:
        self.asked_offers.append(model)
        if self.offers is None:
            return 403, json.dumps({"__type": "AccessDeniedException", "message": "not authorized"})
        if model not in self.offers:
            return 404, json.dumps({"__type": "ResourceNotFoundException", "message": "no offer"})
        term = {"usageBasedPricingTerm": {"rateCard": self.offers[model]}, "legalTerm": {}, "supportTerm": {}}
        return 200, json.dumps({"modelId": model, "offers": [{"offerToken": "token", "termDetails": term}]})


@contextmanager
def serving(server: PriceListServer) -> Iterator[PriceListServer]:
    """The server's ``url`` answers."""

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status: int, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            assert self.headers["X-Amz-Target"] == "AWSPriceListService.GetProducts"
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer(*server.products_answer(request))

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            assert path.startswith("/list-foundation-model-agreement-offers/")
            status, text = server.offers_answer(unquote(path.rpartition("/")[2]))
            self.answer(status, text)

        def log_message(self, format: str, *args: Any) -> None: ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
