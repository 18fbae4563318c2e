"""The pictures that the code of a page draws, by page, and what the code calls them."""

PAGES = {
    "tutorials/tables": {
        "tables_bar": "columns",
        "tables_beeswarm": "swarm",
        "tables_waterfall": "one",
        "tables_scatter": "against",
        "tables_origin": "regions",
        "tables_classes": "of_classes",
    },
    "tutorials/time_series": {
        "series_time": "in_time",
        "series_frequency": "in_frequency",
        "series_frames": "in_both",
    },
    "tutorials/images": {
        "images_first": "first",
        "images_coarse": "coarse",
        "images_between": "between",
    },
    "tutorials/text": {"text_colored": "colored"},
    "tutorials/graphs": {"graphs_nodes": "molecules"},
    "tutorials/data_set": {"data_classes": "classes", "data_errors": "errors"},
    "tutorials/cheating": {"cheating_found": "found", "cheating_fixed": "compared"},
    "howto/pictures": {
        "plot_heatmap": "heat",
        "plot_overlay": "over",
        "plot_outlier": "clipped",
        "plot_percentile": "by_percentile",
        "plot_smooth": "smoother",
        "plot_grid": "methods",
        "plot_seven": "seven",
        "plot_shared": "shared",
        "plot_signal": "wave",
        "plot_text": "colored",
        "plot_panel": "flow",
    },
    "howto/concepts/prototypes": {"concepts_prototypes": "compared"},
    "howto/concepts/patching": {"concepts_patching": "against"},
    "howto/concepts/virtual_units": {"concepts_virtual_units": "circuits"},
    "tutorials/choose": {"choose_methods": "methods"},
    "tutorials/odd_ones": {"odd_ones": "odd"},
    "tutorials/concepts": {
        "concepts_where": "where",
        "concepts_cards": "cards",
        "concepts_atlas": "atlas",
    },
}
