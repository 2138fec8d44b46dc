"""Captions of the nano world in Spanish, of Spain and of America."""

import re

import numpy as np

from lens.nano.world.languages.base import Caption, Frames
from lens.nano.world.languages.european.iberian import Iberian, Words, beside
from lens.nano.world.scene_spec import SceneSpec

WORDS = Words(
    a=("un", "una", "unos", "unas"),
    the=("el", "la", "los", "las"),
    of_the=("del", "de la", "de los", "de las"),
    some=(
        ("unos", "unas", "unos", "unas"),
        ("varios", "varias", "varios", "varias"),
        ("algunos", "algunas", "algunos", "algunas"),
        ("muchos", "muchas", "muchos", "muchas"),
    ),
    numbers=("", "un/una", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho"),
    pair="un par de",
    verbs=(("está", "están"), ("está", "están"), ("se encuentra", "se encuentran"), ("aparece", "aparecen")),
    sizes={
        "small": (
            "pequeño", "pequeño", "<pequeño", "chico", "pequeñito", "diminuto", "chiquito", "muy pequeño",
        ),
        "large": (
            "grande", "grande", "<gran/gran/grandes/grandes", "enorme", "<enorme", "gigante", "muy grande",
        ),
    },
    colours={
        "red": ("rojo", "rojo", "de color rojo-"),
        "orange": ("naranja-", "anaranjado", "de color naranja-"),
        "yellow": ("amarillo", "amarillo", "de color amarillo-"),
        "green": ("verde", "verde", "de color verde-"),
        "blue": ("azul", "azul", "de color azul-"),
        "purple": ("morado", "violeta", "lila", "de color morado-"),
        "pink": ("rosa-", "rosado", "rosa", "de color rosa-"),
        "brown": ("marrón/marrón/marrones/marrones", "café-", "de color marrón-", "castaño"),
    },
    backgrounds={
        "white": ("blanco", "blanco nieve", "color blanco", "de color blanco"),
        "grey": ("gris", "gris medio", "color gris", "de color gris"),
        "black": ("negro", "negro azabache", "color negro", "de color negro"),
        "red": ("rojo", "rojo vivo", "color rojo", "escarlata", "de color rojo"),
        "orange": ("naranja", "anaranjado", "color naranja", "de color naranja"),
        "yellow": ("amarillo", "amarillo dorado", "color amarillo", "de color amarillo"),
        "green": ("verde", "verde hierba", "verde esmeralda", "color verde", "de color verde"),
        "blue": ("azul", "azul rey", "color azul", "de color azul"),
        "light blue": (
            "celeste", "azul claro", "azul cielo", "azul celeste", "color celeste", "de color azul claro",
        ),
        "purple": ("morado", "violeta", "púrpura", "lila", "de color morado"),
        "pink": ("rosa", "rosado", "color rosa", "de color rosa"),
        "brown": ("marrón", "café", "castaño", "marrón chocolate", "color café", "de color marrón"),
        "dark blue": (
            "azul oscuro", "azul marino", "azul noche", "color azul oscuro", "de color azul marino",
        ),
        "turquoise": ("turquesa", "aguamarina", "cian", "color turquesa", "verde azulado"),
        "light green": ("verde claro", "verde lima", "verde menta", "verde pálido", "de color verde claro"),
        "beige": ("beige", "beis", "crema", "color arena", "color crema", "de color beige", "marfil"),
    },
    places={
        "centre": (
            "en el centro", "en el centro", "en medio", "en el medio", "justo en el centro",
            "en el centro de la imagen", "en mitad de la imagen",
        ),
        "left": (
            "a la izquierda", "a la izquierda", "en el lado izquierdo", "a la izquierda de la imagen",
            "en la parte izquierda", "al lado izquierdo",
        ),
        "right": (
            "a la derecha", "a la derecha", "en el lado derecho", "a la derecha de la imagen",
            "en la parte derecha", "al lado derecho",
        ),
        "top": (
            "arriba", "arriba", "en la parte superior", "en la parte de arriba", "arriba en el centro",
            "en la parte superior de la imagen", "en el borde superior",
        ),
        "top left": (
            "arriba a la izquierda", "en la esquina superior izquierda", "en la parte superior izquierda",
            "en la esquina de arriba a la izquierda", "a la izquierda arriba",
        ),
        "top right": (
            "arriba a la derecha", "en la esquina superior derecha", "en la parte superior derecha",
            "en la esquina de arriba a la derecha", "a la derecha arriba",
        ),
        "bottom": (
            "abajo", "abajo", "en la parte inferior", "en la parte de abajo", "abajo en el centro",
            "en la parte inferior de la imagen", "en el borde inferior",
        ),
        "bottom left": (
            "abajo a la izquierda", "en la esquina inferior izquierda", "en la parte inferior izquierda",
            "en la esquina de abajo a la izquierda", "a la izquierda abajo",
        ),
        "bottom right": (
            "abajo a la derecha", "en la esquina inferior derecha", "en la parte inferior derecha",
            "en la esquina de abajo a la derecha", "a la derecha abajo",
        ),
    },
    accents=str.maketrans("áéíóúü", "aeiouu"),
)  # fmt: skip

_BESIDE = (
    "{a} a la SIDE {b:of}",
    "{a} a la SIDE {b:of}",
    "{a:bare} a la SIDE {b:of}",
    "{a} al lado SIDO {b:of}",
    "{a:is} a la SIDE {b:of}",
    "{a:is} al lado SIDO {b:of}",
    "hay {a} a la SIDE {b:of}",
    "dibuja {a} a la SIDE {b:of}",
    "quiero {a} a la SIDE {b:of}",
    "a la SIDE {b:of} hay {a}",
    "a la SIDE {b:of the} {a:there}",
    "{b} con {a} a la SIDE",
    "{b} y, a su SIDE, {a}",
    "{b} que tiene {a} a la SIDE",
    "{b} a la OTHER {a:of}",
    "{b:is} a la OTHER {a:of}",
    "a la SIDE {a}, a la OTHER {b}",
    "a la OTHER {b} y a la SIDE {a}",
    "{a} a la SIDE y {b} a la OTHER",
    "{b} a la OTHER, {a} a la SIDE",
    "SIDE: {a:bare}, OTHER: {b:bare}",
    "{a:bare} SIDE, {b:bare} OTHER",
    "en el lado SIDO {a}, en el lado OTHO {b}",
    "{a:is} a la SIDE y {b:is} a la OTHER",
    "imagen de {a} a la SIDE {b:of}",
)
_ABOVE = (
    "{a} encima {b:of}",
    "{a} encima {b:of}",
    "{a} arriba {b:of}",
    "{a} por encima {b:of}",
    "{a:bare} encima {b:of}",
    "{a} sobre {b}",
    "{a:is} encima {b:of}",
    "{a:is} por encima {b:of}",
    "hay {a} encima {b:of}",
    "dibuja {a} encima {b:of}",
    "encima {b:of} hay {a}",
    "encima {b:of the} {a:there}",
    "{b} con {a} encima",
    "{b} y, encima, {a}",
    "{b} debajo {a:of}",
    "{b:is} debajo {a:of}",
    "{b} bajo {a}",
    "arriba {a}, abajo {b}",
    "arriba {a} y abajo {b}",
    "abajo {b} y arriba {a}",
    "{a} arriba y {b} abajo",
    "{a:is} arriba y {b:is} abajo",
    "arriba: {a:bare}, abajo: {b:bare}",
    "{b} abajo, {a} arriba",
    "{a} en la parte superior y {b} en la parte inferior",
)
_BELOW = (
    "{a} debajo {b:of}",
    "{a} debajo {b:of}",
    "{a} abajo {b:of}",
    "{a} por debajo {b:of}",
    "{a:bare} debajo {b:of}",
    "{a} bajo {b}",
    "{a:is} debajo {b:of}",
    "{a:is} por debajo {b:of}",
    "hay {a} debajo {b:of}",
    "dibuja {a} debajo {b:of}",
    "debajo {b:of} hay {a}",
    "debajo {b:of the} {a:there}",
    "{b} con {a} debajo",
    "{b} y, debajo, {a}",
    "{b} encima {a:of}",
    "{b:is} encima {a:of}",
    "{b} por encima {a:of}",
    "abajo {a}, arriba {b}",
    "arriba {b} y abajo {a}",
    "{a} abajo y {b} arriba",
    "{b:is} arriba y {a:is} abajo",
    "arriba: {b:bare}, abajo: {a:bare}",
    "{b} arriba, {a} abajo",
    "{b} en la parte superior y {a} en la parte inferior",
)


class Spanish(Iberian):
    """Spanish."""

    code = "es"
    name = "Spanish"
    words = WORDS
    frames = Frames(
        one=(
            "{a}", "{a}", "{a}", "{a:bare}", "{a:bare}", "{a:bare listed}", "{a:the}",
            "una imagen de {a}", "una imagen con {a}", "imagen {a:of}", "un dibujo de {a}",
            "dibujo de {a:bare}",
            "una ilustración de {a}", "una foto de {a}", "emoji de {a:bare}", "un emoji con {a}",
            "dibuja {a}", "dibuja {a} por favor", "por favor, dibuja {a}", "dibújame {a}", "píntame {a}",
            "quiero {a}", "quiero ver {a}", "quisiera una imagen de {a}", "me gustaría ver {a}",
            "hay {a}", "dibujá {a}", "aquí hay {a}", "hazme un dibujo de {a}", "haz {a}", "genera {a}",
            "crea una imagen de {a}", "genera una imagen con {a}", "muéstrame {a}", "muestra {a}",
            "¿puedes dibujar {a}?", "¿me dibujas {a}?", "necesito {a}", "simplemente {a}", "solo {a}",
            "una imagen que muestra {a}", "{a} y nada más",
        ),
        two=(
            "{a} y {b}", "{a} y {b}", "{a} y {b}", "{a:bare} y {b:bare}", "{a:bare}, {b:bare}",
            "{a} con {b}", "{a} junto a {b}", "{a}, {b}", "{a} y también {b}", "{a}, además {b}",
            "una imagen de {a} y {b}", "una imagen con {a} y {b}", "dibuja {a} y {b}", "hay {a} y {b}",
            "por favor, dibuja {a} y {b}", "quiero {a} y {b}", "{b} y {a}", "dibujo de {a} con {b}",
            "quiero ver {a} junto con {b}", "tanto {a} como {b}", "{a} más {b}",
            "genera una imagen con {a} y {b}", "¿puedes dibujar {a} y {b}?", "{a:the} y {b:the}",
        ),
        three=(
            "{a}, {b} y {c}", "{a}, {b} y {c}", "{a:bare}, {b:bare}, {c:bare}",
            "{a:bare}, {b:bare} y {c:bare}",
            "{a} con {b} y {c}", "hay {a}, {b} y {c}", "dibuja {a}, {b} y {c}", "{a} y {b}, y también {c}",
            "una imagen con {a}, {b} y {c}", "quiero {a}, {b} y {c}", "{c}, {a} y {b}", "{b} y {a} con {c}",
            "por favor, dibuja {a}, {b} y {c}", "un dibujo de {a}, {b} y {c}", "{a} y {b} junto a {c}",
        ),
        relations={
            "left of": beside(_BESIDE, "izquierda", "derecha"),
            "right of": beside(_BESIDE, "derecha", "izquierda"),
            "above": _ABOVE,
            "below": _BELOW,
        },
        and_then=("{x}, {y}", "{x} y {y}", "{x}; {y}", "{x}. {y}", "{x}, además {y}", "{x} y también {y}"),
        backgrounds=(
            "{x} sobre fondo {bg}", "{x} sobre un fondo {bg}", "{x} en un fondo {bg}", "{x} con fondo {bg}",
            "{x} con un fondo {bg}", "{x}, fondo {bg}", "{x}, fondo {bg}", "{x} fondo {bg}",
            "{x}. Fondo {bg}.",
            "{x}. El fondo es {bg}.", "{x}, el fondo es {bg}", "{x} en fondo {bg}",
            "{x} delante de un fondo {bg}",
            "fondo {bg}, {x}", "sobre un fondo {bg}, {x}", "sobre fondo {bg}: {x}", "fondo {bg}: {x}",
            "fondo {bg}. {x}", "con fondo {bg}, {x}", "{x} y el fondo {bg}",
        ),
        only_background=(
            "fondo {bg}", "un fondo {bg}", "un fondo {bg} liso", "solo un fondo {bg}", "un fondo {bg} vacío",
            "una imagen con fondo {bg} y nada más", "nada más que un fondo {bg}", "dibuja un fondo {bg}",
            "fondo {bg} sin nada", "fondo liso {bg}",
        ),
        signs=(
            'un cartel que dice "{t}"', 'un letrero que dice "{t}"', 'un cartel con la palabra "{t}"',
            "un cartel con el texto «{t}»", "letrero: “{t}”", "cartel '{t}'", "un cartel que pone «{t}»",
            'dibuja un cartel con el texto "{t}"', "un letrero donde se lee '{t}'",
            'la palabra "{t}" en un cartel',
            "quiero un letrero que diga “{t}”", 'un rótulo con "{t}"', 'cartel con "{t}" escrito',
        ),
        with_sign=(
            '{x} y un cartel que dice "{t}"', '{x} con un cartel que dice "{t}"', '{x}, cartel "{t}"',
            "{x} y un letrero con el texto «{t}»", "{x}, con un letrero que dice “{t}”",
            "{x} y un cartel donde pone '{t}'", '{x} con el texto "{t}" en un letrero',
            "{x} y un rótulo: «{t}»",
            'un cartel que dice "{t}" y {x}', 'un letrero con la palabra "{t}", {x}',
        ),
    )  # fmt: skip

    def caption(self, spec: SceneSpec, rng: np.random.Generator) -> Caption:
        """Return a caption; "y" becomes "e" before the sound of i."""
        text, order = super().caption(spec, rng)
        return Caption(re.sub(r"\by (?=i|hi(?!e))", "e ", text), order)
