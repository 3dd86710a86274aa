# Write OUTPUT, a C file with every configs/model/*.json as a string.
set(rows "")
set(count 0)
foreach(file IN LISTS FILES)
    get_filename_component(name "${file}" NAME_WLE)
    file(READ "${file}" text)
    string(REPLACE "\\" "\\\\" text "${text}")
    string(REPLACE "\"" "\\\"" text "${text}")
    string(REPLACE "\n" "\\n\"\n     \"" text "${text}")
    string(APPEND rows "    {\"${name}\",\n     \"${text}\"},\n")
    math(EXPR count "${count} + 1")
endforeach()
file(WRITE "${OUTPUT}"
"#include \"model/builtin.h\"\n\nconst dip_builtin_model dip_builtin_models[] = {\n${rows}};\nconst size_t dip_n_builtin_models = ${count};\n")
