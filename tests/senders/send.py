"""Signs deliveries with the senders' own Python libraries: send.py URL. Their secrets are in the environment."""

import datetime
import hashlib
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request

import standardwebhooks
import stripe
import svix
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from slack_sdk.signature import SignatureVerifier
from twilio.request_validator import RequestValidator

URL = sys.argv[1]
NOW = datetime.datetime.now(tz=datetime.timezone.utc)
WRONG = []


def post(hook, body, headers, wanted):
    """Delivers `body`; `wanted` is the status, the text of a good answer, or the count that must be above 0 in it."""
    request = urllib.request.Request(f"{URL}/webhooks/{hook}", data=body, method="POST")
    for name, value in {"content-type": "application/json", **headers}.items():
        request.add_header(name, value)
    try:
        with urllib.request.urlopen(request) as answer:
            status, text = answer.status, answer.read().decode()
            told = text if isinstance(wanted, str) else json.loads(text)
    except urllib.error.HTTPError as error:
        status, told = error.code, error.read().decode()
    if isinstance(wanted, str):
        good = status == 200 and told == wanted
    else:
        good = status == wanted if isinstance(wanted, int) else status in (200, 202) and any(told.get(name, 0) for name in wanted)
    if not good:
        WRONG.append(f"{hook}: {status} {told}, not {wanted}: {headers}")


TAKEN = ("applied", "unchanged", "deferred", "queued")
ROW = json.dumps({"op": "update", "id": "1", "new": {"id": 1, "name": "Crème brûlée", "price": 420}}, ensure_ascii=False)


def standard():
    for name, library in (("webhook", standardwebhooks), ("svix", svix)):
        for secret in ("WHSEC", "WHSEC_NEW"):
            signer = library.Webhook(os.environ[secret])
            own = f"msg_{name}_{secret}"
            signed = {f"{name}-id": own, f"{name}-timestamp": str(int(NOW.timestamp()))}
            signed[f"{name}-signature"] = signer.sign(own, NOW, ROW)
            post("standard", ROW.encode(), signed, TAKEN)
            post("standard", ROW.encode(), signed, ("duplicate",))
            post("standard", ROW.encode() + b" ", {**signed, f"{name}-id": own}, 401)
        stranger = library.Webhook("whsec_" + "A" * 32)
        post("standard", ROW.encode(), {**signed, f"{name}-signature": stranger.sign(own, NOW, ROW)}, 401)
        late = NOW - datetime.timedelta(seconds=400)
        old = {f"{name}-timestamp": str(int(late.timestamp())), f"{name}-signature": signer.sign(own, late, ROW)}
        post("standard", ROW.encode(), {**signed, **old}, 401)


def stripe_events():
    product = {"id": "2", "object": "product", "name": "Croissant"}
    event = {"id": "evt_1", "object": "event", "type": "product.updated", "created": int(NOW.timestamp())}
    body = json.dumps({**event, "data": {"object": product}})
    sign = stripe.WebhookSignature.generate_signature_header
    signature = sign(body, os.environ["STRIPE_SECRET"])
    post("stripe", body.encode(), {"stripe-signature": signature}, TAKEN)
    post("stripe", body.encode(), {"stripe-signature": signature}, ("duplicate",))
    post("stripe", body.encode(), {"stripe-signature": sign(body, "another")}, 401)
    future = sign(body, os.environ["STRIPE_SECRET"], timestamp=int(NOW.timestamp()) + 4000)
    post("stripe", body.encode(), {"stripe-signature": future}, 401)


def cloudevents():
    token = {"authorization": f"Bearer {os.environ['TOKEN']}"}
    for number, write in enumerate((to_binary_event, to_structured_event)):
        attributes = {"id": f"e {number}", "source": "/shop", "type": "shop.product.updated", "subject": "3"}
        attributes |= {"specversion": "1.0", "datacontenttype": "application/json", "note": "Euro € 😀"}
        message = write(CloudEvent(attributes, {"id": 3, "name": "Crème", "price": number}))
        post("events", message.body, {**message.headers, **token}, TAKEN)
        post("events", message.body, {**message.headers, **token}, ("duplicate",))
        post("events", message.body, dict(message.headers), 401)


FORM = {"content-type": "application/x-www-form-urlencoded"}


def slack():
    at = str(int(NOW.timestamp()))
    command = urllib.parse.urlencode({"command": "/crème", "text": "1", "channel_name": "a b"})
    button = urllib.parse.urlencode({"payload": json.dumps({"type": "block_actions", "actions": [{"value": "2"}]})})
    for body in (command, button):
        signature = SignatureVerifier(os.environ["SLACK_SECRET"]).generate_signature(timestamp=at, body=body)
        signed = {**FORM, "x-slack-request-timestamp": at, "x-slack-signature": signature}
        post("slack", body.encode(), signed, "")
        post("slack", body.encode() + b"&x=1", signed, 401)


class Repeated(dict):
    """Fields of a form, each with all of its values."""

    getlist = dict.get


def twilio():
    own = RequestValidator(os.environ["TWILIO_TOKEN"])
    url = "https://shop.example/webhooks/twilio"
    fields = Repeated({"MessageSid": ["1"], "Body": ["Crème brûlée & 1+1"], "Tag": ["b", "a", "b"], "Empty": [""]})
    body = urllib.parse.urlencode(fields, doseq=True).encode()
    for query, port in (("", ""), ("?a=1&b=%2F", ":443")):
        signed = url.replace(".example", f".example{port}") + query
        signature = {**FORM, "x-twilio-signature": own.compute_signature(signed, fields)}
        post(f"twilio{query}", body, signature, "<Response></Response>")
        post(f"twilio{query}", body + b"&Tag=c", signature, 401)
        post("twilio?a=2", body, signature, 401)
    document = json.dumps({"MessageSid": "1", "note": "Crème"}, ensure_ascii=False)
    query = f"?bodySHA256={hashlib.sha256(document.encode()).hexdigest()}"
    signature = {"x-twilio-signature": own.compute_signature(url + query, {})}
    post(f"twilio{query}", document.encode(), signature, TAKEN)
    post(f"twilio{query}", document.encode() + b" ", signature, 401)


standard()
stripe_events()
cloudevents()
slack()
twilio()
print("\n".join(WRONG) or "standardwebhooks, svix, stripe, cloudevents, slack_sdk and twilio (Python): verified")
sys.exit(bool(WRONG))
