#include "loss/loss.h"

#include <string.h>

extern const dip_loss dip_loss_infonce;

static const dip_loss *const losses[] = {&dip_loss_infonce};

const dip_loss *const *dip_loss_all(size_t *n)
{
    *n = sizeof losses / sizeof losses[0];
    return losses;
}

const dip_loss *dip_loss_find(const char *name)
{
    for (size_t i = 0; i < sizeof losses / sizeof losses[0]; i++)
        if (strcmp(losses[i]->name, name) == 0) return losses[i];
    return NULL;
}
