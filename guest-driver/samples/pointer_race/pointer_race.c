// SPDX-License-Identifier: GPL-2.0-only
/*
 * pointer_race: a driver with one planted bug, a race of a few instructions. Nothing sleeps in it,
 * no device is asked, no function of the kernel's is called between its two ends:
 *
 *   value_show                          alive_store, "0"
 *     p = here
 *     p is there, so go on
 *                                         here = NULL
 *                                         kfree(p)
 *     read p->value: freed memory
 *
 *   /sys/class/misc/pointer_race/value  a number, read through a pointer; ENODEV where that is NULL
 *   /sys/class/misc/pointer_race/alive  "1" makes the object, "0" frees it
 *
 * A correct driver would take the mutex in value_show, too, or free after an RCU grace period.
 * Its target is pointer_race.toml beside it. Builds on Linux 5.15 and newer.
 */
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/sysfs.h>

struct object {
	unsigned long value;
};

/* Whoever makes or frees the object. */
static DEFINE_MUTEX(lock);
static struct object *here;

static ssize_t value_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct object *p = READ_ONCE(here);

	if (!p)
		return -ENODEV;
	/* The bug: nothing keeps *p from here on. */
	return sysfs_emit(buf, "%lu\n", READ_ONCE(p->value));
}
static DEVICE_ATTR_RO(value);

static int make(void)
{
	struct object *p;

	if (here)
		return 0;
	p = kzalloc(sizeof(*p), GFP_KERNEL);
	if (!p)
		return -ENOMEM;
	p->value = 1;
	WRITE_ONCE(here, p);
	return 0;
}

static void end(void)
{
	struct object *p = here;

	WRITE_ONCE(here, NULL);
	kfree(p);
}

static ssize_t alive_store(struct device *dev, struct device_attribute *attr, const char *buf,
			   size_t count)
{
	bool alive;
	int ret = kstrtobool(buf, &alive);

	if (ret)
		return ret;
	mutex_lock(&lock);
	if (alive)
		ret = make();
	else
		end();
	mutex_unlock(&lock);
	return ret ? ret : count;
}
static DEVICE_ATTR_WO(alive);

static struct attribute *pointer_race_attrs[] = {
	&dev_attr_value.attr,
	&dev_attr_alive.attr,
	NULL
};
ATTRIBUTE_GROUPS(pointer_race);

static const struct file_operations pointer_race_fops = {
	.owner = THIS_MODULE,
};

static struct miscdevice pointer_race = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "pointer_race",
	.fops = &pointer_race_fops,
	.groups = pointer_race_groups,
};

static int __init pointer_race_init(void)
{
	return misc_register(&pointer_race);
}
module_init(pointer_race_init);

static void __exit pointer_race_exit(void)
{
	/* The attributes are gone, and whoever was in them has left, before the object goes. */
	misc_deregister(&pointer_race);
	end();
}
module_exit(pointer_race_exit);

MODULE_DESCRIPTION("A planted race of a few instructions");
MODULE_LICENSE("GPL");
