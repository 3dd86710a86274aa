#include "model/clip.h"

dip_status dip_clip_init(dip_clip *clip, const dip_model_config *config)
{
    dip_status status;
    *clip = (dip_clip){.config = *config};
    DIP_TRY_GOTO(dip_vision_init(&clip->vision, &config->vision, config->embed_dim, &clip->table));
    DIP_TRY_GOTO(dip_text_init(&clip->text, &config->text, config->embed_dim, &clip->table));
    clip->logit_scale = dip_param_add(&clip->table, DIP_INIT_CONSTANT, config->init_logit_scale,
                                      false, 0, NULL, "logit_scale");
    DIP_TRY_GOTO(dip_param_table_layout(&clip->table));
    return DIP_OK;
fail:
    dip_clip_free(clip);
    return status;
}

void dip_clip_free(dip_clip *clip)
{
    dip_vision_free(&clip->vision);
    dip_text_free(&clip->text);
    dip_param_table_free(&clip->table);
}
