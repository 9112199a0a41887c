"""Answering many people at once: an OpenAI-compatible server for the course's models.

    app.py         HTTP: routes, streaming, who may ask             page.html  a page to talk to it
    protocol.py    what a request may say, and what is wrong with it
    engine.py      one thread that owns the model; requests join and leave between two steps
    schedule.py    whose tokens a step computes
    slots.py       keys and values of all running requests, each as long as its text
    text.py        tokens to text: whole characters, and stop strings
    model.py       which model it is, by name
    server.py      a socket, an address, signals
    latency.py     percentiles

`labs/serve.py` starts it.
"""
