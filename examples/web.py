"""A web service that stores each order before it answers: POST /orders/CUSTOMER.

Needs DISSTREAM_ENDPOINT and DISSTREAM_PROJECT_ID, and the stream "orders".
"""

from collections.abc import AsyncIterator

from aiohttp import web

import disstream

PRODUCER = web.AppKey("producer", disstream.Producer)


async def producing(app: web.Application) -> AsyncIterator[None]:
    """One producer for all requests, from the start of the service to its end: then it sends what is left."""
    async with disstream.connect() as dis, dis.producer("orders") as producer:
        app[PRODUCER] = producer
        yield


async def order(request: web.Request) -> web.Response:
    """Requests that come together share a batch. A client that goes away changes nothing for the others."""
    try:
        receipt = await request.app[PRODUCER].send_and_wait(await request.read(), key=request.match_info["customer"])
    except (disstream.BufferFull, disstream.NotStored) as error:  # certainly not stored: the client may try again
        raise web.HTTPServiceUnavailable(text=str(error)) from error
    except disstream.DeliveryUnknown as error:  # perhaps stored: trying again may store it twice
        raise web.HTTPGatewayTimeout(text=str(error)) from error
    place = {"partition_id": receipt.partition_id, "sequence_number": receipt.sequence_number}
    return web.json_response(place, status=201)


def application() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(producing)
    app.router.add_post("/orders/{customer}", order)
    return app


if __name__ == "__main__":
    web.run_app(application(), host="127.0.0.1", port=8081)
