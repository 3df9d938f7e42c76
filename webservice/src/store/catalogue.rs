//! What the shop sells when it starts with an empty database.

/// One product of the demo catalogue.
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    /// In paisa.
    pub(super) price_minor: i64,
    pub(super) stock: i64,
    pub(super) category: &'static str,
}

const fn entry(
    category: &'static str,
    name: &'static str,
    price_minor: i64,
    stock: i64,
    description: &'static str,
) -> Entry {
    Entry { name, description, price_minor, stock, category }
}

/// In the order of their identifiers.
#[rustfmt::skip]
pub(super) const CATALOGUE: &[Entry] = &[
    entry("fashion", "Dhakai Jamdani Saree", 1_250_000, 40, "Handwoven cotton and silk from Rupganj, white on white."),
    entry("fashion", "Tangail Cotton Saree", 185_000, 160, "Light weave for summer with a striped border."),
    entry("fashion", "Rajshahi Silk Scarf", 95_000, 220, "Mulberry silk, dyed by hand."),
    entry("fashion", "Panjabi, Khadi Cotton", 145_000, 180, "Comilla khadi with wooden buttons."),
    entry("fashion", "Checked Lungi", 48_000, 500, "Soft cotton from Pabna, two metres."),
    entry("fashion", "Leather Sandals from Hazaribagh", 165_000, 140, "Full-grain leather, stitched sole."),
    entry("home", "Nakshi Kantha Quilt", 420_000, 60, "Embroidered in Jamalpur from layers of old sarees."),
    entry("home", "Shital Pati Mat", 130_000, 90, "Cool cane mat from Sylhet, four by six feet."),
    entry("home", "Dhamrai Brass Lamp", 275_000, 45, "Cast by the lost-wax method."),
    entry("home", "Terracotta Tea Set", 88_000, 110, "Pot and four cups from Bijoypur clay."),
    entry("home", "Jute Shopping Bag", 25_000, 900, "The golden fibre, with a lining."),
    entry("home", "Rickshaw Art Tray", 64_000, 150, "Tin tray painted in Old Dhaka."),
    entry("grocery", "Chinigura Rice, 5 kg", 82_500, 700, "Aromatic small grain from Dinajpur for polao."),
    entry("grocery", "Mustard Oil, 1 litre", 29_000, 800, "Cold-pressed, sharp."),
    entry("grocery", "Sylhet Black Tea, 400 g", 24_500, 650, "Strong leaf from Sreemangal gardens."),
    entry("grocery", "Sundarbans Honey, 500 g", 62_000, 260, "Khalsi blossom, gathered in the mangroves."),
    entry("grocery", "Khejur Gur, 1 kg", 55_000, 300, "Date palm jaggery from Jashore."),
    entry("grocery", "Panch Phoron, 200 g", 12_000, 850, "Five spices, whole."),
    entry("sweets", "Bogura Doi", 32_000, 200, "Sweet yoghurt in its clay pot."),
    entry("sweets", "Porabari Chomchom, 1 kg", 48_000, 180, "From Tangail, rolled in mawa."),
    entry("sweets", "Natore Kachagolla, 500 g", 36_000, 150, "Soft fresh cheese with cardamom."),
    entry("books", "Gitanjali by Rabindranath Tagore", 35_000, 320, "Bangla text with the poet's English."),
    entry("books", "Padma Nadir Majhi by Manik Bandopadhyay", 28_000, 240, "The boatman of the Padma."),
    entry("books", "Nakshi Kanthar Math by Jasimuddin", 22_000, 210, "The field of the embroidered quilt."),
    entry("electronics", "Rechargeable Table Fan", 310_000, 130, "Twelve inches, eight hours through load-shedding."),
    entry("electronics", "Solar Lantern", 115_000, 280, "With a USB port for the telephone."),
    entry("electronics", "LED Bulb, 12 W", 18_000, 990, "Keeps shining from 160 to 260 volts."),
    entry("sports", "Cricket Bat, Kashmir Willow", 215_000, 85, "Full size with a cane handle."),
];
