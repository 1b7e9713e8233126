"""The functions people's SQL may call. Whatever is not listed is refused, so a new version of DuckDB opens nothing.

Left out on purpose: what reads files, settings, catalogs or variables, raises errors at will, waits, or makes a long
value out of a short one (`repeat`, `lpad`, `printf`, `range` as a value).
"""

from __future__ import annotations

OPERATORS = frozenset("+ - * / // % ** ^ || | & << >> ~ @ ^@ ~~ !~~ ~~* !~~* ~~~ ->> <-> <=> <@ @> &&".split())

SCALAR = frozenset(
    """
    abs ceil ceiling floor round round_even trunc sign sqrt cbrt exp ln log log10 log2 pow power pi degrees radians
    sin cos tan cot asin acos atan atan2 sinh cosh tanh greatest least gcd lcm isnan isinf isfinite even factorial
    add subtract multiply divide fdiv fmod mod random hash md5 sha1 sha256
    lower upper lcase ucase length len strlen char_length character_length bit_length octet_length trim ltrim rtrim
    left right substr substring contains prefix suffix starts_with ends_with instr strpos position replace reverse
    translate concat concat_ws split split_part str_split string_split string_to_array strip_accents ascii ord chr
    unicode like_escape not_like_escape ilike_escape not_ilike_escape regexp_matches regexp_full_match regexp_extract
    regexp_extract_all regexp_replace regexp_split_to_array str_split_regex string_split_regex regexp_escape
    levenshtein damerau_levenshtein hamming jaccard jaro_similarity jaro_winkler_similarity nfc_normalize
    hex unhex to_hex base64 to_base64 from_base64 encode decode
    year month day quarter week weekday weekofyear dayofweek dayofmonth dayofyear isodow isoyear yearweek decade
    century hour minute second millisecond microsecond epoch epoch_ms dayname monthname last_day days_in_month
    date_part datepart date_trunc datetrunc date_diff datediff date_sub datesub date_add age make_date make_time
    make_timestamp time_bucket strftime strptime try_strptime to_years to_months to_weeks to_days to_hours to_minutes
    to_seconds to_timestamp timezone today now current_date get_current_timestamp get_current_time transaction_timestamp
    current_localtime current_localtimestamp
    nullif if constant_or_null typeof uuid gen_random_uuid
    list_value list_pack array_value list_extract list_element array_extract element_at list_slice array_slice
    list_contains array_contains list_has array_has list_has_all array_has_all list_has_any array_has_any
    list_position array_position list_indexof list_distinct array_distinct list_unique array_unique list_sort
    array_sort list_reverse_sort list_reverse array_reverse list_concat array_concat list_cat list_append
    array_append list_prepend list_intersect list_filter array_filter list_transform array_transform list_apply
    apply filter list_reduce reduce list_aggregate list_aggr array_aggregate list_sum list_avg list_min list_max
    list_count list_median list_first list_last list_any_value list_mode list_bool_and list_bool_or list_string_agg
    list_zip list_where list_select flatten array_length array_to_string cardinality unnest row struct_pack
    struct_extract struct_keys struct_values map map_from_entries map_keys map_values map_entries map_extract
    map_contains equi_width_bins generate_subscripts overlay
    """.split()
)

AGGREGATE = frozenset(
    """
    count count_star count_if countif sum avg mean min max median mode quantile quantile_cont quantile_disc mad
    stddev stddev_pop stddev_samp variance var_pop var_samp sem skewness kurtosis entropy corr covar_pop covar_samp
    regr_slope regr_intercept regr_r2 regr_count regr_avgx regr_avgy any_value arbitrary first last arg_min arg_max
    argmin argmax min_by max_by bool_and bool_or bit_and bit_or bit_xor product geomean geometric_mean fsum favg
    string_agg group_concat listagg list array_agg histogram approx_count_distinct approx_quantile
    """.split()
)

WINDOW = frozenset(
    "row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value".split()
)

ALLOWED = OPERATORS | SCALAR | AGGREGATE | WINDOW
TABLE_FUNCTIONS = frozenset({"unnest", "range", "generate_series"})
