// SPDX-License-Identifier: GPL-2.0-only
/*
 * c_knob: the smallest driver worth testing, a template for your own.
 *
 *   /dev/c_knob                   eight bytes to read and write; an open descriptor keeps the module
 *   /sys/class/misc/c_knob/level  a number; its removal waits for who is inside
 *
 * Its target is c_knob.toml beside it. Builds on Linux 5.15 and newer.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sysfs.h>

static DEFINE_MUTEX(lock);
static unsigned int level;
static char bytes[8];

static ssize_t level_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	unsigned int now;

	mutex_lock(&lock);
	now = level;
	mutex_unlock(&lock);
	return sysfs_emit(buf, "%u\n", now);
}

static ssize_t level_store(struct device *dev, struct device_attribute *attr, const char *buf,
			   size_t count)
{
	unsigned int wanted;
	int ret = kstrtouint(buf, 0, &wanted);

	if (ret)
		return ret;
	mutex_lock(&lock);
	level = wanted;
	mutex_unlock(&lock);
	return count;
}
static DEVICE_ATTR_RW(level);

static struct attribute *c_knob_attrs[] = { &dev_attr_level.attr, NULL };
ATTRIBUTE_GROUPS(c_knob);

static ssize_t c_knob_read(struct file *file, char __user *to, size_t count, loff_t *at)
{
	ssize_t ret;

	mutex_lock(&lock);
	ret = simple_read_from_buffer(to, count, at, bytes, sizeof(bytes));
	mutex_unlock(&lock);
	return ret;
}

static ssize_t c_knob_write(struct file *file, const char __user *from, size_t count, loff_t *at)
{
	ssize_t ret;

	mutex_lock(&lock);
	ret = simple_write_to_buffer(bytes, sizeof(bytes), at, from, count);
	mutex_unlock(&lock);
	return ret;
}

static const struct file_operations c_knob_fops = {
	.owner = THIS_MODULE,
	.read = c_knob_read,
	.write = c_knob_write,
	.llseek = default_llseek,
};

static struct miscdevice c_knob = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "c_knob",
	.fops = &c_knob_fops,
	.groups = c_knob_groups,
};
module_misc_device(c_knob);

MODULE_DESCRIPTION("A template: a device node and an attribute");
MODULE_LICENSE("GPL");
