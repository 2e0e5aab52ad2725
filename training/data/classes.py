"""What a pixel shows: the classes of rendered images, and the class of a mesh of the asset folder."""

from __future__ import annotations

import re
from typing import Any

CLASSES = (
    "sky",
    "floor",
    "wall",  # with columns and partitions
    "ceiling",
    "ground",  # grass, soil, terrain
    "road",
    "pavement",
    "building",  # seen from outside
    "vegetation",
    "vehicle",
    "person",
    "door",
    "window",
    "curtain",
    "picture",  # with posters, boards and flat signs on a wall
    "table",  # with desks and counters
    "chair",
    "sofa",
    "bed",
    "shelf",
    "cabinet",
    "lamp",
    "machine",  # appliances, electronics, radiators, sanitary ware
    "container",  # boxes, bins, bags, barrels, pallets and what lies packed on them
    "book",
    "tableware",  # dishes, cutlery, pans, bottles, cans
    "food",
    "object",  # other small things
    "pole",  # posts, street lights, traffic lights and signs
    "structure",  # fences, barriers, bridges, towers, rocks, street furniture
    "other",  # several things in one mesh, or nothing of the above
)
"""Names of the classes; a class id is the position, 0 is the sky."""

CLASS_IDS = {name: number for number, name in enumerate(CLASSES)}

_MESH_NAMES: tuple[tuple[str, str], ...] = (
    ("tableware", "tableware, kitchen utensils, seasoning box, cutting board, egg cup, tea set, cutlery tray, round tin, knife block, pepper mill"),
    ("object", "door handle, handle, car wheel, cake slicer, cheese slicer, metal peg board, wooden peg board, wooden board, cinder block"),
    ("object", "ball, dumbbell, vase, holder, horologe, magic cube, fire hose"),
    ("cabinet", "tv cabinet, night stand, wardrobe, cabinet, drawer"),
    ("container", "cardboard box, office box, pizza box, styrofoam, bag, carton, crate, chest, barrel, bucket, tote, wooden case, euro pallet"),
    ("container", "trash, wastebasket, dumpster, postbox, mailbox, cluttering"),
    ("machine", "computer, tablet, tv, air conditioner, airconditioner, security camera, cooking bench, fitness equipment, rangehood"),
    ("machine", "refrigerator, fridge, microwave, coffee maker, dishwasher, toilet, sink, smart speaker, pallet jack, control console"),
    ("pole", "lamp post, light post, telephone pole, stop sign, speed limit sign, stop light"),
    ("picture", "portrait, whiteboard, logo, hospitalsign"),
    ("structure", "bus stop, water tower, radio tower, tower crane, bridge, pier, fountain, playground, ladder, barrier, fence, hydrant, formation"),
    ("structure", "construction cone, brick box, hoop, walkway, market stand, well, practice truss, parking block, practice slats"),
    ("vehicle", "ship, boat"),
    ("lamp", "chandelier, light, lamp"),
    ("wall", "wall, walls, column, elevator, bathroom, meeting room, living room, private office, public cafe"),
    ("door", "door"),
    ("window", "window"),
    ("curtain", "curtain, curtains"),
    ("ceiling", "ceiling, roof"),
    ("floor", "carpet, ramp, floor"),
    ("shelf", "bookshelf, bookshelves, shelf, shoe rack"),
    ("book", "book"),
    ("chair", "chair, stool"),
    ("sofa", "sofa, couch"),
    ("bed", "bed, pillow, quilt"),
    ("table", "table, desk, counter, nursesstation, private cafe"),
    ("road", "road, asphalt plane, cloverleaf interchange"),
    ("ground", "ground, terrain, field, hole"),
    ("building", "building, house, office, station, parking garage, gazebo, apartment, fast food, thrift shop, salon, school"),
    ("building", "grocery store, powerplant, reactor, collapsed, cafe"),
    ("vehicle", "bicycle, bus, truck, car, ambulance, suv, hatchback, pickup, polaris, cart"),
    ("vegetation", "tree, palm, plant, fern, flower, flowers, sunflower, bushes"),
    (
        "tableware",
        "bottle, bowl, can, cup, fork, knife, spoon, spatula, plate, pot, pan, saucepan, frypan, glass, mug, utensil, whisk, shaker, beer, soap",
    ),
    ("tableware", "mortar, rolling, lid, chopstick, tajine, steamer, tenderizer, cutter, ramekin, soda, wine, detergent, cocktail, frappe, board"),
    ("food", "banana, pepper, cereal, crisps, ketchup, mustard"),
    ("structure", "practice"),
)
"""Class and words of a mesh's name, the first row that matches counts; two words must follow each other."""

_MESH_CATEGORIES = {"food": "food", "vehicles": "vehicle", "architecture": "building", "nature": "vegetation", "misc": "object"}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_CAMEL_SUFFIX = re.compile(r"(?<=[a-z])[A-Z]$")


def class_of_mesh(entry: dict[str, Any]) -> str:
    """Return the class of a mesh from its entry in the asset index: people by domain, then its name, its category, its domain."""
    if entry["domain"] == "person":
        return "person"
    # a part of a world file has only a number in its file name, and its name behind the source's '#'
    source = entry.get("source", "")
    name = source.split("#")[-1] if "__inline_" in entry["file"] and "#" in source else entry["file"].split("__")[-1].removesuffix(".glb")
    spoken = f" {' '.join(word.lower() for word in _WORD.findall(name))} "
    for label, words in _MESH_NAMES:
        if any(f" {word} " in spoken for word in words.split(", ")):
            return "floor" if label == "ground" and entry["domain"] == "indoor" else label
    return _MESH_CATEGORIES.get(entry.get("category", ""), "object" if entry["domain"] == "object" else "other")
