"""A typed answer: the agent answers in JSON, the template receives an object."""

from dataclasses import dataclass

from hud.environment import Answer, Environment

env = Environment(name="invoices")


@dataclass
class Invoice:
    number: str
    total: float
    currency: str


@env.template(description="Read an invoice.", returns=Invoice)
async def read_invoice(text: str, number: str, total: float, currency: str):
    answer: Answer[Invoice] = yield (
        f"Read this invoice and answer with a JSON object with number, total and currency.\n\n{text}"
    )
    found = answer.content
    if not isinstance(found, Invoice):  # what could not be read arrives as the text it was
        yield 0.0
        return
    right = [found.number == number, abs(found.total - total) < 0.005, found.currency == currency]
    yield sum(right) / len(right)


@read_invoice.solution
async def _(run, text: str, number: str, total: float, currency: str):
    return {"number": number, "total": total, "currency": currency}
