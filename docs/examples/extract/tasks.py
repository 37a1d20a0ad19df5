"""Three invoices."""

from env import read_invoice

from hud.eval import Taskset

INVOICES = [
    ("INVOICE No. 2031-7 ... Total due: EUR 1,204.50", "2031-7", 1204.5, "EUR"),
    ("Rechnung 88/B, Gesamtbetrag 99,00 CHF", "88/B", 99.0, "CHF"),
    ("inv#X9 | subtotal $10.00 | tax $0.80 | TOTAL $10.80", "X9", 10.8, "USD"),
]

TASKS = Taskset(
    "invoices",
    [
        read_invoice(text=text, number=number, total=total, currency=currency)
        for text, number, total, currency in INVOICES
    ],
)
