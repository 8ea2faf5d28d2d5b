"""What the emulated contact centre is made of: channels, queues, people, words. All invented."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from consumer.emulator.record_ids import PREFIXES, numbered_id


@dataclass(frozen=True, slots=True)
class Channel:
    """A messaging channel.

    Attributes:
        channel_id: record id, prefix ``0Mj``.
        kind: ChannelType.
        name: ChannelName.
        key: ChannelKey, such as the number customers write to.
        share: its part of all sessions; the shares add up to 100.
        enhanced: whether it is on the enhanced platform (Consent, Paused, Inactive, Error exist only there).
        consent: whether sessions begin with an opt-in exchange.
        bot: whether a bot answers first.
    """

    channel_id: str
    kind: str
    name: str
    key: str
    share: int
    enhanced: bool = True
    consent: bool = False
    bot: bool = False


def _channel_id(number: int) -> str:
    return numbered_id(PREFIXES["MessagingChannel"], number)


CHANNELS: Final = (
    Channel(_channel_id(1), "EmbeddedMessaging", "Help on the web", "web_help", 30, bot=True),
    Channel(_channel_id(2), "WhatsApp", "WhatsApp Nordics", "whatsapp:+4755501000", 28, consent=True, bot=True),
    Channel(_channel_id(3), "Text", "SMS service line", "+4755501001", 12, enhanced=False),
    Channel(_channel_id(4), "AppleBusinessChat", "Messages for Business", "urn:mbid:AQAAY0", 9),
    Channel(_channel_id(5), "WebChat", "Shop chat", "shop_chat", 8, enhanced=False),
    Channel(_channel_id(6), "Facebook", "Facebook page", "100055501002", 7, bot=True),
    Channel(_channel_id(7), "Line", "Line Japan", "@kaden-help", 4, bot=True),
    Channel(_channel_id(8), "Custom", "Partner app", "partner_app", 2),
)
QUEUES: Final = tuple(numbered_id(PREFIXES["Group"], number) for number in range(1, 7))
REPS: Final = tuple(numbered_id(PREFIXES["User"], number) for number in range(100, 140))
BOT_USER: Final = numbered_id(PREFIXES["User"], 2)
AUTOMATED_USER: Final = numbered_id(PREFIXES["User"], 3)
INTEGRATION_USER: Final = numbered_id(PREFIXES["User"], 4)
BOT: Final = numbered_id(PREFIXES["BotDefinition"], 1)
SERVICE_CHANNEL: Final = numbered_id(PREFIXES["ServiceChannel"], 1)

UI_ORIGIN: Final = "com/salesforce/api/soap/66.0;client=SfdcInternalAPI/"
APEX_ORIGIN: Final = "com/salesforce/api/apex/66.0"
REST_ORIGIN: Final = "com/salesforce/api/rest/66.0;client=case-linker"
SYSTEM_ORIGIN: Final = ""

LANGUAGES: Final = ("en_US", "de", "no", "sv", "da", "fr", "ja", "es", "nl_NL", "fi")
INTENTS: Final = ("order_status", "returns", "billing", "repair", "delivery_date", "other")
PRIORITIES: Final = ("Low", "Normal", "High", "Urgent")
TOPICS: Final = ("Returns", "Billing", "Delivery", "Repair", "Warranty", "Account")
GIVEN_NAMES: Final = ("Astrid", "Bjørn", "Chloé", "Daiki", "Elif", "Farid", "Grete", "Hugo", "Ines", "Jürgen")
FAMILY_NAMES: Final = ("Lindqvist", "Müller", "Okafor", "Tanaka", "Øvrebø", "García", "Novák", "Haddad")
COMPANIES: Final = ("Fjordkraft Hvitevarer", "Müller & Söhne", "Kaden Kobo", "Casa Roble", "Brightwell")
PLACES: Final = (
    ("Strandgaten 12", "Bergen", "5013", "Norway", "NO", 60.39299, 5.32415),
    ("Hauptstraße 4", "München", "80331", "Germany", "DE", 48.13743, 11.57549),
    ("3-2-1 Nihonbashi", "Tokyo", "103-0027", "Japan", "JP", 35.68406, 139.77446),
    ("Rue de l'Église 7", "Lyon", "69005", "France", "FR", 45.76404, 4.83566),
    ("Kungsgatan 55", "Stockholm", "111 22", "Sweden", "SE", 59.33459, 18.06324),
)
SENTENCES: Final = (
    "Customer asks where the order is; tracking shows it left the depot.",
    "Offered a replacement, customer prefers a refund.",
    "Verified name and postal code.",
    "Sent the article about descaling, customer will try it tonight.",
    "Invoice was sent to the old address; corrected.",
    "Technician visit suggested for next week, “mornings only”.",
    "Customer thanks, nothing further.",
    "Bot could not match the serial number, taken over.",
)
