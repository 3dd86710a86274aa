/* Finding a configuration: by the name of a built-in model, or in a file or checkpoint folder. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/config.h"
#include "core/file.h"
#include "core/json.h"
#include "model/builtin.h"
#include "model/config.h"

enum { MAX_BUILTIN = 256 };

static const char *names[MAX_BUILTIN];
static size_t n_names;
static pthread_once_t names_once = PTHREAD_ONCE_INIT;

static void collect_names(void)
{
    for (; n_names < dip_n_builtin_models && n_names < MAX_BUILTIN; n_names++)
        names[n_names] = dip_builtin_models[n_names].name;
}

const char *const *dip_model_names(size_t *n)
{
    pthread_once(&names_once, collect_names);
    *n = n_names;
    return names;
}

static const dip_builtin_model *find_builtin(const char *name)
{
    for (size_t i = 0; i < dip_n_builtin_models; i++)
        if (strcmp(dip_builtin_models[i].name, name) == 0) return &dip_builtin_models[i];
    return NULL;
}

static dip_status unknown_model(const char *name)
{
    size_t n;
    const char *const *all = dip_model_names(&n);
    const char *near = dip_nearest_word(name, all, n);
    char list[2048] = "";
    for (size_t i = 0; i < n; i++) {
        if (strlen(list) + strlen(all[i]) + 3 > sizeof list) break;
        strcat(list, i ? ", " : "");
        strcat(list, all[i]);
    }
    return dip_fail(DIP_CONFIG,
                    "no model is called '%.200s' and there is no such file%s%s%s; "
                    "built in are %s",
                    name, near ? "; did you mean " : "", near ? near : "", near ? "?" : "", list);
}

dip_status dip_model_config_named(dip_model_config *config, const char *name)
{
    const dip_builtin_model *model = find_builtin(name);
    if (!model) return unknown_model(name);
    cJSON *json;
    DIP_TRY(dip_json_parse(&json, model->json, strlen(model->json), name));
    dip_status status = dip_model_config_from_json(config, json, name);
    cJSON_Delete(json);
    return status;
}

static dip_status read_file(dip_model_config *config, const char *path)
{
    cJSON *json;
    DIP_TRY(dip_json_read(&json, path));
    dip_status status = dip_model_config_from_json(config, json, path);
    cJSON_Delete(json);
    return status;
}

dip_status dip_model_config_open(dip_model_config *config, const char *name_or_path)
{
    if (find_builtin(name_or_path)) return dip_model_config_named(config, name_or_path);
    if (!dip_path_exists(name_or_path) && !strchr(name_or_path, '/')) {
        size_t n = strlen(name_or_path);
        bool is_json = n > 5 && strcmp(name_or_path + n - 5, ".json") == 0;
        if (!is_json) return unknown_model(name_or_path);
    }
    if (!dip_path_is_dir(name_or_path)) return read_file(config, name_or_path);
    char *path = dip_path_join(name_or_path, "open_clip_config.json");
    if (!path) return dip_fail(DIP_NOMEM, "no memory for the path of %s", name_or_path);
    dip_status status = read_file(config, path);
    free(path);
    return status;
}
